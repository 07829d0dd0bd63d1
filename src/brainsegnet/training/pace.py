"""How fast a training runs, and how much of the time the device waits for samples."""

import time
from typing import Any

import torch


class Mark:
    """A moment on the time line of a device."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = time.perf_counter()
        self.event: Any = None
        if device.type == "cuda":
            self.event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self.event.record()

    def reached(self) -> bool:
        """Whether the device has come this far."""
        return self.event is None or bool(self.event.query())

    def seconds_to(self, other: "Mark") -> float:
        """Seconds from this mark to a later one, on the time line of the device."""
        if self.event is None or other.event is None:
            return other.seconds - self.seconds
        return float(self.event.elapsed_time(other.event)) / 1000


class Pace:
    """Splits each step into cutting samples and learning from them.

    On a GPU the split is read from events on its time line, once it has passed them: measuring never makes it wait.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.cutting, self.learning, self.samples = 0.0, 0.0, 0
        self._marks: list[Mark] = []
        self._open: list[tuple[list[Mark], int]] = []

    def mark(self) -> None:
        """Call before cutting, between cutting and learning, and after learning."""
        self._marks.append(Mark(self.device))

    def close_step(self, samples: int) -> None:
        """Account for the three marks of a step, and of earlier steps that have ended since."""
        self._open.append((self._marks, samples))
        self._marks = []
        while self._open and self._open[0][0][-1].reached():
            (begin, middle, end), samples = self._open.pop(0)
            self.cutting += begin.seconds_to(middle)
            self.learning += middle.seconds_to(end)
            self.samples += samples

    @property
    def samples_per_second(self) -> float:
        """Since the start, or since training was resumed."""
        spent = self.cutting + self.learning
        return self.samples / spent if spent else 0.0

    @property
    def waiting(self) -> float:
        """Share of the time in which the device had no samples to learn from."""
        spent = self.cutting + self.learning
        return self.cutting / spent if spent else 0.0
