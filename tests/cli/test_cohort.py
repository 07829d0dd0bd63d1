"""`brainsegnet cohort` as it is typed, with the model of the package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CODE = "from brainsegnet.cli import main\nif __name__ == '__main__':\n    main()"


def cohort(*arguments, hide=""):
    code = f"import sys\nsys.modules['{hide}'] = None\n{CODE}" if hide else CODE
    return subprocess.run(
        [sys.executable, "-c", code, "cohort", *map(str, arguments)], capture_output=True, text=True, timeout=600
    )


def test_without_pyarrow_one_sentence_names_the_extra(phantoms, tmp_path):
    done = cohort("find", phantoms, "--out", tmp_path / "out", hide="pyarrow")
    assert done.returncode == 1
    sentence = 'a cohort needs pyarrow, which is absent; run: pip install "brainsegnet[cohort]"'
    assert done.stderr == f"brainsegnet: {sentence}\n"
    assert not (tmp_path / "out").exists()


def test_a_cohort_is_found_run_and_accounted_for(phantoms, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out"
    assert cohort("find", phantoms, "--out", out).returncode == 0
    done = cohort("run", "--model", "tumour", "--out", out, "--device", "cpu", "--threads", 1)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 cases done (100.0%), 0 failed, 0 running, 0 waiting" in done.stdout
    assert re.match(r"3 cases segmented in \d+ seconds?, \d+ an hour\n", done.stdout), done.stdout
    again = cohort("run", "--model", "tumour", "--out", out, "--device", "cpu", "--threads", 1)
    assert (again.returncode, again.stdout.splitlines()[0]) == (0, "no case was segmented"), again.stderr
    assert "3 of 3 cases done" in cohort("status", out).stdout
    assert cohort("ledger", out, "--out", tmp_path / "all.parquet").returncode == 0
    table = parquet.read_table(tmp_path / "all.parquet")
    assert table["status"].to_pylist() == ["done"] * 3
    done = cohort("report", out, "--page-cases", 2)
    assert done.returncode == 0, done.stderr
    assert "of 3 cases to look at first; 3 thumbnails drawn, 0 kept; open " in done.stdout
    assert Path(done.stdout.split("open ")[1].strip()).is_file()


def test_two_commands_share_a_cohort(phantoms, tmp_path):
    pytest.importorskip("pyarrow")
    out = tmp_path / "out"
    assert cohort("find", phantoms, "--out", out).returncode == 0
    run = [sys.executable, "-c", CODE, "cohort", "run", "--model", "tumour", "--out", out, "--device", "cpu"]
    both = [subprocess.Popen([*map(str, run), "--threads", "1"], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [command.communicate(timeout=600)[0] for command in both]
    assert [command.returncode for command in both] == [0, 0]
    assert sum(int(done[1]) for text in said if (done := re.match(r"(\d) cases? segmented", text))) == 3
    assert all("3 of 3 cases done" in text for text in said)
    assert len([*out.glob("*/*.nii.gz")]) == 3
    assert not [*out.glob("*/claims/*")]


ENDED = """
import os, signal, time
from brainsegnet.cli import main
from brainsegnet.inference.segmenter import Segmenter

def end(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

Segmenter.compute = end
if __name__ == "__main__":
    main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_where_the_processes_are_told_to_end_the_command_says_that_cases_are_left(phantoms, tmp_path):
    """The process is told in the midst of its first case. It reads this file again, as it is spawned."""
    pytest.importorskip("pyarrow")
    (tmp_path / "ended.py").write_text(ENDED)
    run = [tmp_path / "ended.py", "cohort", "run", phantoms, "--model", "tumour", "--out", tmp_path / "out"]
    done = subprocess.run([sys.executable, *run, "--device", "cpu"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 cases are left, because processes were ended; run it again" in done.stderr
    assert "0 running, 3 waiting" in done.stdout
    assert not [*(tmp_path / "out").glob("*/claims/*")]


def test_a_cohort_on_ray_is_as_quiet_and_gives_the_same(phantoms, tmp_path):
    pytest.importorskip("ray")
    for engine in ("processes", "ray"):
        out = tmp_path / engine
        named = ("--model", "tumour", "--out", out, "--device", "cpu", "--engine", engine)
        done = cohort("run", phantoms, *named, "--workers", 2, "--threads", 1)
        said = [line for line in done.stderr.splitlines() if not re.match(r"[0-9] of 3 cases", line)]
        assert (done.returncode, said) == (0, []), done.stderr
        assert "3 of 3 cases done (100.0%), 0 failed" in done.stdout.splitlines()[-1]
        maps = {path.name: path.read_bytes() for path in out.glob("*/*.nii.gz")}
        assert maps == {path.name: path.read_bytes() for path in (tmp_path / "processes").glob("*/*.nii.gz")}
        assert not [*out.glob("*/.stop*"), *out.glob("*/claims/*")]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("status", "OUT"), "OUT has no manifest.parquet; begin with brainsegnet cohort run STUDIES --out OUT"),
        (("run", "--model", "tumour", "--out", "OUT"), "OUT has no manifest.parquet yet; name folders or tables"),
        (("run", "--model", "tumour", "--out", "OUT", "--shard", "9/3"), "--shard 9/3 is no part of a whole"),
    ],
)
def test_what_is_typed_wrong_is_one_sentence(arguments, sentence, tmp_path):
    pytest.importorskip("pyarrow")
    out = str(tmp_path / "out")
    done = cohort(*(word.replace("OUT", out) for word in arguments))
    assert done.returncode in (1, 2)
    assert done.stderr.startswith(f"brainsegnet: {sentence.replace('OUT', out)}")
    assert done.stderr.count("\n") == 1
