"""The command line in this process: what it wrote, and the code it ended with."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from brainsegnet.cli import STOPPING, main
from brainsegnet.training import recipes


@dataclass(frozen=True)
class Ended:
    """How a call ended."""

    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one line of a refusal, without our name before it."""
        assert self.code != 0
        return self.only_line

    @property
    def only_line(self) -> str:
        """The one line on standard error."""
        start, newline = "brainsegnet: ", "\n"
        assert self.err.startswith(start) and self.err.endswith(newline) and self.err.count(newline) == 1, self.err
        return self.err.removeprefix(start).removesuffix(newline)


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None) -> Iterator[Run]:
    """Calls `brainsegnet` with arguments."""
    numbers = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
    handlers, hook = [signal.getsignal(number) for number in numbers], threading.excepthook

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["brainsegnet", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Ended(code, *capsys.readouterr())

    yield call
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)
    threading.excepthook = hook


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tiny: recipes.Recipe) -> None:
    """The recipe `quick` of the command line is the tiny one."""
    monkeypatch.setitem(recipes.RECIPES, "quick", tiny)


@pytest.fixture
def left() -> Callable[[Path], list[str]]:
    """Names of all files below a folder, hidden ones too."""

    def find(folder: Path) -> list[str]:
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())

    return find
