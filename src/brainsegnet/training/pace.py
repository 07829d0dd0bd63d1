"""How fast a training runs, and how much of the time the device waits for samples."""

import time

import torch


class Pace:
    """Splits each step into cutting samples and learning from them.

    On a GPU the split is read from events on its own time line, one step late, so that measuring never makes it wait.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.cutting, self.learning, self.samples = 0.0, 0.0, 0
        self._marks: list[float | torch.cuda.Event] = []
        self._last: list[float | torch.cuda.Event] = []

    def mark(self) -> None:
        """Call before cutting, between cutting and learning, and after learning."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self._marks.append(event)
        else:
            self._marks.append(time.perf_counter())

    def close_step(self, samples: int) -> None:
        """Account for the three marks of a step."""
        if self.cuda and self._last:
            torch.cuda.current_stream().wait_event(self._last[-1])  # type: ignore[arg-type]
        due = self._last if self.cuda else self._marks
        if due:
            self.cutting += _seconds(due[0], due[1])
            self.learning += _seconds(due[1], due[2])
            self.samples += samples
        self._last, self._marks = self._marks, []

    @property
    def samples_per_second(self) -> float:
        """Since the last `reset`."""
        spent = self.cutting + self.learning
        return self.samples / spent if spent else 0.0

    @property
    def waiting(self) -> float:
        """Share of the time in which the device had no samples to learn from, since the last `reset`."""
        spent = self.cutting + self.learning
        return self.cutting / spent if spent else 0.0

    def reset(self) -> None:
        """Start counting anew."""
        self.cutting, self.learning, self.samples = 0.0, 0.0, 0


def _seconds(begin: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(begin, float) or isinstance(end, float):
        return float(end) - float(begin)  # type: ignore[arg-type]
    end.synchronize()
    return begin.elapsed_time(end) / 1000
