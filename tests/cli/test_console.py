"""What is printed never stops the work: names that a console lacks, brackets, a closed output, a reader that leaves."""

import io
import os
import subprocess
import sys

import pytest

from brainsegnet.cli import console
from brainsegnet.cli.bars import TrainingBar
from brainsegnet.cli.console import SteadyStream, steady_streams
from brainsegnet.cli.messages import complain, say
from brainsegnet.io.cases import find_cases
from brainsegnet.io.images import read_image, write_image
from brainsegnet.progress import ProgressEvent

MAIN = (sys.executable, "-c", "from brainsegnet.cli import main; main()")
ODD_NAME = "Nov\u00e1k \u010d [anon] :x:"


@pytest.fixture(scope="module")
def data(phantoms, tmp_path_factory):
    """Two small cases, one with a name that some consoles cannot show."""
    folder = tmp_path_factory.mktemp("odd")
    for case, name in zip(find_cases([phantoms]), (ODD_NAME, "plain"), strict=False):
        for sequence, path in case.images.items():
            write_image(read_image(path), folder / name / f"{sequence}.nii.gz")
    return folder


def start(*arguments, **options):
    """The command in a process of its own, without a console."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.Popen([*MAIN, *map(str, arguments)], env=env, stderr=subprocess.PIPE, **options)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_name_that_the_console_cannot_show_costs_no_case(data, trained, tmp_path, encoding):
    env = {"PYTHONIOENCODING": encoding}
    arguments = ("segment", data, "--model", trained, "--out", tmp_path, "--device", "cpu", "--threads", 1)
    process = start(*arguments, env=env, stdout=subprocess.PIPE)
    said, err = process.communicate(timeout=300)
    assert process.returncode == 0 and b"Traceback" not in err
    assert ODD_NAME.encode(encoding, "backslashreplace") in said
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_table_is_shown_in_every_encoding_with_brackets_and_colons_as_they_are(data, encoding):
    process = start("inspect", data, env={"PYTHONIOENCODING": encoding, "COLUMNS": "200"}, stdout=subprocess.PIPE)
    said, err = process.communicate(timeout=300)
    assert process.returncode == 0 and not err
    assert ODD_NAME.encode(encoding, "backslashreplace") in said and b"plain" in said


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors are closed by POSIX means")
@pytest.mark.parametrize("closed", [(0,), (1,), (1, 2), (0, 1, 2)], ids=str)
def test_streams_that_are_closed_from_the_start_cost_nothing(data, trained, tmp_path, closed):
    """What a library prints must not get into a file that was given the number of a closed stream."""
    options = ("--out", tmp_path / "a.nii.gz", "--device", "cpu", "--threads", 1, "--timings")
    process = start(
        *("segment", data / "plain", "--model", trained, *options),
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: [os.close(number) for number in closed],
    )
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0 and not err
    assert (tmp_path / "a.json").is_file() and read_image(tmp_path / "a.nii.gz").shape == (24, 40, 40)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break by POSIX means")
@pytest.mark.parametrize("bad", [False, True])
def test_a_reader_that_leaves_neither_stops_the_work_nor_changes_the_code(data, trained, tmp_path, bad):
    """As in `brainsegnet segment ... 2>&1 | head -1`."""
    case, code = (tmp_path / "data" / "bad", 1) if bad else (data, 0)
    if bad:
        case.mkdir(parents=True)
        (case / "flair.nii.gz").write_bytes(b"none")
    end, ours = os.pipe()
    os.close(end)
    arguments = ("segment", case, "--model", trained, "--out", tmp_path / "out", "--device", "cpu", "--threads", 1)
    process = subprocess.Popen([*MAIN, *map(str, arguments)], stdout=ours, stderr=ours)
    os.close(ours)
    assert process.wait(timeout=300) == code
    assert bad or len(list((tmp_path / "out").glob("*.json"))) == 2


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_an_output_that_cannot_be_written_is_told_and_code_1():
    with open("/dev/full", "w") as full:
        process = start("inspect", stdout=full)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err == b"brainsegnet: standard output cannot be written: No space left on device\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every name of a file is Unicode")
@pytest.mark.parametrize("suffix", [".nii.gz", ".mha"])
def test_a_name_that_is_not_utf_8_costs_no_other_case(data, trained, tmp_path, run, suffix):
    """NIfTI is read and written under such names; the library for the other formats knows only UTF-8."""
    folder = tmp_path / "data"
    for name in (b"M\xfcller", b"good"):
        for path in (data / "plain").iterdir():
            target = folder / os.fsdecode(name) / f"{path.name.removesuffix('.nii.gz')}.nii.gz"
            write_image(read_image(path), target)
            if suffix == ".mha" and name != b"good":
                target.rename(target.with_name(target.name.replace(".nii.gz", ".mha")))
    options = ("--model", trained, "--out", tmp_path / "out", "--device", "cpu", "--threads", 1)
    ended = run("segment", folder, *options)
    done = {"good.json", "good.nii.gz"}
    if suffix == ".mha":
        assert ended.code == 1 and "has a name that is not UTF-8" in ended.err and "M\\udcfcller" in ended.err
        assert "incomplete: 1 of 2: M%FCller" in run("inspect", folder).out
    else:
        assert ended.code == 0 and "M%FCller: " in ended.out
        done |= {"M%FCller.json", "M%FCller.nii.gz"}
        scored = run(
            "evaluate", tmp_path / "out", tmp_path / "out", "--task", "brats2015", "--out", tmp_path / "scores"
        )
        assert scored.code == 0 and "M%FCller" in (tmp_path / "scores" / "scores.json").read_text(encoding="utf-8")
    assert {path.name for path in (tmp_path / "out").iterdir()} == done
    assert "Müller" not in run("inspect", folder).out and "M%FCller" in run("inspect", folder).out


def test_control_characters_of_a_name_do_not_reach_the_terminal(capsys):
    say("a\x1b[2Jb\tc\nd")
    complain("e\x07f\ng")
    said, err = capsys.readouterr()
    assert said == "a\\x1b[2Jb\tc\nd\n" and err == "brainsegnet: e\\x07f g\n"


def test_a_bar_shows_brackets_as_they_are(capsys):
    with TrainingBar() as bar:
        event = ProgressEvent(0.5, 1, 1, 3, 1.0, "[red]:x:", 0.5, 1e-3, 9.0, 0.0, {"[bold]": 0.5})
        bar.on_progress(event)
    assert "[red]:x: step 3" in capsys.readouterr().err


class Refusing(io.TextIOWrapper):
    """A stream whose writes fail, as of a pipe or a disk."""

    def __init__(self, error):
        super().__init__(io.BytesIO(), "utf-8")
        self.refusal = error

    def write(self, text):
        raise self.refusal


def test_a_stream_remembers_the_first_refusal_and_a_reader_that_left_is_none():
    gone, full = SteadyStream(Refusing(BrokenPipeError())), SteadyStream(Refusing(OSError(28, "No space left")))
    for stream in (gone, full):
        assert stream.write("a") == 1 and isinstance(stream.error, OSError)
        stream.flush()
    assert gone.failure is None and full.failure is full.error


def test_the_streams_of_the_process_come_back(monkeypatch):
    before = sys.stdout, sys.stderr
    with steady_streams() as out:
        assert sys.stdout is out and isinstance(sys.stderr, console.SteadyStream)
        with steady_streams():
            print("nested")
    assert (sys.stdout, sys.stderr) == before
