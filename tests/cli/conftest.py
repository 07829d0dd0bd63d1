"""The command line in this process: what it wrote, and the code it ended with."""

import json
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from brainsegnet.cli import STOPPING, main
from brainsegnet.io.images import read_labels
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


SECONDS = 60
"""A run takes at most so much time of the processor."""


@pytest.fixture
def obey(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bool]:
    """Runs a verb, which writes to a place of its own, and checks the laws; whether it came to a result.

    `...` among the arguments is the place. With `partly`, a refusal may leave whole results of other cases.
    """

    def call(*arguments: object, partly: bool = False, check: Callable[[Path], None] = lambda out: None) -> bool:
        scratch = tmp_path_factory.mktemp("out")
        out, began = scratch / "out", time.process_time()
        places = {"page.html": scratch / "page.html", "table.md": scratch / "table.md"}
        given = [
            out if part is ... else places.get(part, part) if isinstance(part, str) else part for part in arguments
        ]
        ended = run(*given)
        assert time.process_time() - began < SECONDS, "too slow"
        assert ended.code in (0, 1, 2) and "Traceback" not in ended.err, ended.err
        assert ended.code == 0 or ended.err.startswith("brainsegnet: "), ended.err
        assert len(ended.err) < 5000
        files = [path for path in scratch.rglob("*") if path.is_file()]
        assert not [path for path in files if ".brainsegnet" in path.name]
        assert not ended.code or partly or not files, files
        for path in files:
            if path.name.endswith(".nii.gz"):
                check_result(path)
        if not ended.code:
            check(out)
        shutil.rmtree(scratch)
        return ended.code == 0

    return call


def check_result(path: Path) -> None:
    """A label map is whole, and so is its JSON."""
    assert set(np.unique(read_labels(path).array)) <= {0, 1, 2, 3, 4}
    note = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert all(np.isfinite(ml) and ml >= 0 for ml in note["volumes_ml"]["regions"].values())
