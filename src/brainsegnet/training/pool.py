"""Scans that are made while a training goes on: so many are in memory, and the oldest makes room for a new one."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import torch

from brainsegnet.training.patches import Scan

Put = Callable[[int, Scan], None]
"""Takes a slot and the scan that is in it from now on."""


class Pool:
    """So many made scans in memory, one of them replaced every so many steps.

    Which they are at a step follows from the step alone, so that nothing of a pool is in the state of a training, and
    all processes of a training hold the same.

    Args:
        slots: Scans at a time.
        every: Steps after which the oldest is replaced.
        make: Scan of a number from 0, which is always the same scan.
        depth: Slices that a scan counts in an epoch, however many it has.
        origin: What makes them, in words; a training is resumed with the same only.
        ahead: Make the next scan in a thread while the training goes on, instead of when it is due.

    Attributes:
        seen: Scans that the training has held so far, over all resumed parts.

    >>> pool = Pool(3, 40, make=lambda number: ...)
    >>> pool.numbers_at(0), pool.numbers_at(39), pool.numbers_at(40), pool.numbers_at(200)
    ([0, 1, 2], [0, 1, 2], [3, 1, 2], [6, 7, 5])
    >>> pool.count_at(200)
    8
    """

    def __init__(
        self,
        slots: int,
        every: int,
        make: Callable[[int], Scan],
        depth: int = 1,
        origin: str = "",
        ahead: bool = False,
    ) -> None:
        self.slots, self.every, self.depth, self.origin, self.ahead = slots, every, depth, origin, ahead
        self.seen = 0
        self._make = make
        self._held: list[int | None] = []
        self._thread: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[Scan]] | None = None

    @classmethod
    def empty(cls) -> Self:
        """No scans at all."""

        def refuse(number: int) -> Scan:
            raise ValueError(f"an empty pool has no scan {number}")

        return cls(0, 1, refuse)

    def count_at(self, step: int) -> int:
        """Scans that have been held up to a step, which is counted from 0."""
        return self.slots + max(step, 0) // self.every if self.slots else 0

    def numbers_at(self, step: int) -> list[int]:
        """The number of the scan in each slot at a step: the newest of those that this slot gets."""
        newest = self.count_at(step) - 1
        return [newest - (newest - slot) % self.slots for slot in range(self.slots)]

    @property
    def fingerprint(self) -> str:
        """What must agree for a training to be resumed; nothing where there is no pool."""
        told = f" {self.slots} made by {self.origin}, {self.depth} deep, a new one every {self.every} steps"
        return told if self.slots else ""

    def fill(self, step: int, put: Put) -> None:
        """Make all that belongs to a step, whatever was held before."""
        self.close()
        self._held = [None] * self.slots
        self._thread = ThreadPoolExecutor(1) if self.ahead and self.slots else None
        self.update(step, put)

    def update(self, step: int, put: Put) -> None:
        """Hold what belongs to a step, and begin with what comes next where scans are made ahead."""
        for slot, number in enumerate(self.numbers_at(step)):
            if self._held[slot] != number:
                put(slot, self._obtain(number))
                self._held[slot] = number
        self.seen = self.count_at(step)
        if self._thread and (self._next is None or self._next[0] != self.seen):
            self._next = self.seen, self._thread.submit(self._make, self.seen)

    def close(self) -> None:
        """End the thread, after the scan that it is at."""
        if self._thread:
            self._thread.shutdown(cancel_futures=True)
        self._thread = self._next = None

    def _obtain(self, number: int) -> Scan:
        """A scan that was begun with, or is made now, in the same thread as the others."""
        if self._next and self._next[0] == number:
            return self._next[1].result()
        return self._thread.submit(self._make, number).result() if self._thread else self._make(number)


def beside(make: Callable[[int], Scan], device: torch.device) -> Callable[[int], Scan]:
    """`make` on a stream of a GPU that is its own: it does not wait for what the training has queued there."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def make_there(number: int) -> Scan:
        with torch.cuda.stream(stream):
            return make(number)

    return make_there
