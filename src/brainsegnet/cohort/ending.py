"""The end of a process by SIGTERM: at once, but not amid a step that must be whole, such as to claim a case."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

TERMINATED = 128 + 15
"""Exit code of a process that was told to end."""


@dataclass
class _Steps:
    """Steps of the main thread that must be whole, one within another, and whether it is to end after them."""

    open: int = 0
    ends: bool = False


_steps = _Steps()


def end_process(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM: end this process by an exception, so that its files are removed and its cases given back."""
    if not _steps.open:
        sys.exit(TERMINATED)
    _steps.ends = True


@contextmanager
def whole() -> Iterator[None]:
    """A step within which `end_process` waits. In other threads than the main one, no signal is handled anyway."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _steps.open += 1
    try:
        yield
    finally:
        _steps.open -= 1
        if _steps.ends and not _steps.open:
            _steps.ends = False
            sys.exit(TERMINATED)
