"""How much a command says, where, and the exit codes that scripts rely on."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from brainsegnet.cli import _describe, messages
from brainsegnet.cli.app import app
from brainsegnet.cli.bars import Bar, CasesBar, describe_time_left
from brainsegnet.io.cases import find_cases
from brainsegnet.progress import CaseCounter, ProgressEvent

CPU = ("--device", "cpu", "--threads", 1)
TASK = ("--task", "brats2015")
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d (start|message|detail|result|error|progress) .*")


@pytest.fixture
def command(phantoms, trained, tmp_path):
    return ("segment", phantoms, "--model", trained, "--out", tmp_path / "out", *CPU)


def test_a_quiet_command_shows_tables_and_errors_only(run, command, phantoms, shifted, tmp_path):
    ended = run(*command, "--quiet")
    assert (ended.code, ended.out) == (0, "")
    assert all(": warning: " in line for line in ended.err.splitlines())
    scored = run("evaluate", shifted, phantoms, *TASK, "--quiet")
    assert scored.code == 0 and "Mean of 3 cases" in scored.out
    assert run("inspect", phantoms, "--quiet").out
    assert run("simulate", tmp_path / "s", "--cases", 1, "--shape", 24, 40, 40, "--quiet").out == ""
    assert run(*command, "--quiet").sentence.startswith(f"{tmp_path / 'out' / 'phantom0000.nii.gz'} is there already")


def test_a_verbose_command_tells_versions_stages_and_the_exit_code(run, command):
    ended = run(*command, "--verbose")
    assert ended.code == 0 and "phantom0000: whole" in ended.out
    for words in ("brainsegnet 0", "phantom0000: ", "one pass", "network", "ended with exit code 0 after"):
        assert words in ended.err
    again = run(*command, "--verbose")
    assert again.code == 1 and "OutputError" in again.err and "Traceback" in again.err
    assert "Traceback" not in run(*command).err


def test_quiet_and_verbose_exclude_each_other(run):
    ended = run("inspect", "--quiet", "--verbose")
    assert ended.code == 2 and ended.sentence == "--quiet and --verbose exclude each other; leave one out"


def test_a_log_holds_all_that_is_said_with_times_and_is_continued(run, command, phantoms, shifted, tmp_path):
    log = tmp_path / "log.txt"
    quiet = run(*command, "--quiet", "--log", log)
    assert quiet.code == 0 and quiet.out == ""
    lines = log.read_text().splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    assert " start brainsegnet segment " in lines[0] and lines[-1].split(" ", 2)[2].startswith("ended with exit code 0")
    assert any(" message phantom0001: whole " in line for line in lines)
    assert run(*command, "--log", log).code == 1
    assert run("evaluate", shifted, phantoms, *TASK, "--log", log).code == 0
    more = log.read_text()
    assert more.startswith("\n".join(lines)) and " error " in more and "is there already" in more
    assert " result | " in more and more.count(" start brainsegnet ") == 3
    assert "ended with exit code 1" in more


def test_a_file_of_another_kind_is_no_log(run, phantoms, tmp_path):
    scan = shutil.copy(find_cases([phantoms])[0].images["flair"], tmp_path / "scan.mha")
    before = scan.read_bytes()
    for path in (scan, tmp_path, tmp_path / "absent" / "log.txt"):
        ended = run("inspect", "--log", path)
        assert ended.code == 1 and str(path) in ended.sentence and "name another file with --log" in ended.sentence
    (tmp_path / "notes.txt").write_text("notes")
    assert "is no log" in run("inspect", "--log", tmp_path / "notes.txt").sentence
    assert scan.read_bytes() == before and (tmp_path / "notes.txt").read_text() == "notes"


def test_a_log_on_a_full_disk_is_told_at_the_end(run, small_disk, phantoms):
    disk = small_disk(16)
    (disk / "filler").write_bytes(bytes(8 * 1024))
    code, sentence = 0, ""
    for _ in range(40):
        ended = run("inspect", phantoms, "--log", disk / "log.txt")
        code, sentence = ended.code, ended.err
        if code:
            break
    assert code == 1 and "log" in sentence and "No space left" in sentence and "Traceback" not in sentence


def test_files_at_the_place_of_out_are_not_replaced_unless_asked_for(run, phantoms, shifted, tmp_path):
    scores = tmp_path / "scores"
    score = ("evaluate", shifted, phantoms, *TASK, "--out", scores)
    assert run(*score).code == 0
    for command, file in (
        (score, scores / "scores.csv"),
        (("report", shifted, phantoms, *TASK, "--out"), tmp_path / "page.html"),
        (("paper", "table", scores, "--number", 1, "--out"), tmp_path / "table.md"),
        (("paper", "figure", phantoms, "--predictions", shifted, *TASK, "--out"), tmp_path / "figure.svg"),
        (
            ("benchmark", "rank", scores / "scores.json", scores / "scores.json", "--out", tmp_path),
            tmp_path / "pairs.csv",
        ),
        (("paper", "submit", shifted, phantoms, *TASK, "--name", "m", "--out"), tmp_path / "upload.zip"),
    ):
        words = (*command, file) if command[-1] == "--out" else command
        file.write_text("mine")
        ended = run(*words)
        assert ended.code == 1 and f"{file} is there already" in ended.sentence and "add --overwrite" in ended.sentence
        assert file.read_text() == "mine" and "--skip-existing" not in ended.sentence
    assert run(*score, "--overwrite").code == 0 and (scores / "scores.csv").read_text() != "mine"


def test_every_verb_has_the_same_options_of_messages():
    verbs = [app[name] for name in ("segment", "train", "simulate")] + [app["benchmark"]["rank"]]
    for verb in verbs:
        names = {name for argument in verb.assemble_argument_collection() for name in argument.names}
        assert {"--quiet", "--verbose", "--log"} <= names


def test_off_a_terminal_several_cases_get_a_line_now_and_then_and_one_case_none(capsys):
    with CasesBar(every_seconds=0) as bar:
        counter = CaseCounter(bar, 3)
        for _ in range(3):
            counter.advance()
    err = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in err] == ["1 of 3 cases", "2 of 3 cases"]
    assert all(line.endswith(" left") for line in err)
    with CasesBar(every_seconds=0) as bar:
        CaseCounter(bar, 1).advance()
    with CasesBar() as bar:
        counter = CaseCounter(bar, 100)
        for _ in range(100):
            counter.advance()
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal_leaves_standard_output_to_its_reader():
    """Standard output goes to a file: what is said while the bar is shown must arrive there, not on the terminal."""
    code = """
import sys
sys.stderr.isatty = lambda: True
from brainsegnet.cli.bars import CasesBar
from brainsegnet.cli.messages import complain, say
from brainsegnet.progress import CaseCounter
with CasesBar() as bar:
    counter = CaseCounter(bar, 2)
    say("a result")
    counter.advance()
    complain("a warning")
    counter.advance()
"""
    environment = {"TERM": "xterm", "COLUMNS": "100", "FORCE_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **environment}
    )
    assert done.stdout == "a result\n"
    assert "brainsegnet: a warning" in done.stderr and "2 of 2 cases" in done.stderr


def test_the_time_left_is_that_of_the_mean_case(monkeypatch, recorder):
    heard, now = recorder(), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    counter = CaseCounter(heard, 4)
    for _ in range(4):
        now[0] += 60
        counter.advance()
    assert [event.minutes_left for event in heard.events] == [None, 3, 2, 1, 0]
    assert [event.progress for event in heard.events] == [0, 0.25, 0.5, 0.75, 1]
    assert describe_time_left(3) == "3 minutes left"


def test_exit_codes_of_usage_failure_and_success(run, command, phantoms, trained, tmp_path):
    assert run("segment", phantoms, "--threads", 0).code == 2
    assert run("segment", "--nonsense").code == 2
    assert run("segment").code == 2
    assert run("segment", phantoms, "--verify").code == 2
    assert run("simulate", tmp_path / "s", "--cases", 0).code == 2
    assert run("nonsense").code == 2
    assert run("segment", tmp_path / "nothing", "--out", tmp_path / "o").code == 1
    data = shutil.copytree(phantoms, tmp_path / "data")
    find_cases([data])[1].images["t1"].write_bytes(b"no image")
    failed = run("segment", data, "--model", trained, "--out", tmp_path / "part", *CPU)
    assert failed.code == 1 and "1 of 3 cases could not be done; 2 could" in failed.err
    assert run("segment", data, "--model", trained, "--out", tmp_path / "part", *CPU, "--skip-existing").code == 1
    assert run(*command).code == 0


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_gives_128_and_its_number_and_is_in_the_log(tmp_path, name):
    log = tmp_path / "log.txt"
    words = ("simulate", tmp_path / "out", "--cases", 400, "--shape", 24, 40, 40, "--log", log)
    code = f"import sys, signal; signal.signal(signal.{name}, signal.SIG_DFL); from brainsegnet.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "phantom0000\n"
    number = getattr(signal, name)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"ended with exit code {128 + number} after" in log.read_text()
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_a_bar_of_a_quiet_command_is_not_shown(monkeypatch, capsys):
    monkeypatch.setattr(messages._command, "options", messages.MessageOptions(quiet=True))
    with Bar("title") as bar:
        bar.start()
        bar.move(ProgressEvent(0.5, 1, 1), "half", now=True)
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_while_a_library_is_loaded_is_an_interrupt():
    """A compiled library turns it into an ImportError."""
    error = ImportError("initialization failed")
    error.__cause__ = KeyboardInterrupt()
    assert _describe(error) == ("interrupted", 130)
    with pytest.raises(ImportError):
        _describe(ImportError("initialization failed"))
