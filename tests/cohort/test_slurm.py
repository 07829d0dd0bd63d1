"""Scripts for Slurm: what they ask for, and what they do when bash runs them as Slurm would."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

pytest.importorskip("pyarrow")

from brainsegnet.cli.app import app, spell
from brainsegnet.cohort import CohortOptions, SlurmOptions
from brainsegnet.cohort.manifest import prepare_manifest
from brainsegnet.cohort.slurm import write_scripts
from brainsegnet.cohort.status import look_at
from brainsegnet.cohort.tables import read_parquet
from brainsegnet.errors import DatasetError, ModelError, OutputError, UsageError
from brainsegnet.inference import SegmentOptions
from brainsegnet.plotting import DrawingOptions

NAME = "a cohort's 100 %"
needs_bash = pytest.mark.skipif(shutil.which("bash") is None or os.name != "posix", reason="there is no bash")


@pytest.fixture
def out(phantoms, tmp_path):
    prepare_manifest([phantoms], tmp_path / NAME, rescan=False)
    return tmp_path / NAME


def write(out, slurm=None, **changes):
    """The text of both scripts."""
    write_scripts(out, "tumour", slurm or SlurmOptions(3, cpus=1), **changes)
    return [(out / name).read_text() for name in ("jobs.sh", "jobs-ledger.sh")]


def asked(text):
    return dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", text, re.MULTILINE))


def run_job(out, number):
    slurm = {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_CPUS_PER_TASK": "1"}
    return subprocess.run(
        ["bash", out / "jobs.sh"], env={**os.environ, **slurm}, capture_output=True, text=True, timeout=300
    )


@needs_bash
def test_the_jobs_of_an_array_segment_each_case_once_and_the_ledger_lists_them(out):
    slurm = SlurmOptions(3, cpus=1, memory="4G")
    segmenting = SegmentOptions(device="cpu", presence_check=False)
    commands = write_scripts(out, "tumour", slurm, spell(segmenting), segmenting=segmenting)
    for number in (1, 2, 3):
        done = run_job(out, number)
        assert done.returncode == 0, done.stderr
        assert "1 of 1 cases done" in done.stdout
        assert look_at(out)[0].done == number
    ledger = shlex.split(commands[1])[-1]
    subprocess.run(["bash", ledger], check=True, timeout=60)
    rows = list(read_parquet(out / look_at(out)[0].folder / "ledger.parquet"))
    assert {row["status"] for row in rows} == {"done"} and len(rows) == 3
    assert {row["attempt"] for row in rows} == {1}


@needs_bash
def test_both_scripts_are_bash_and_need_the_number_of_the_job(out):
    write(out)
    for name in ("jobs.sh", "jobs-ledger.sh"):
        subprocess.run(["bash", "-n", out / name], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    done = subprocess.run(["bash", out / "jobs.sh"], env=environment, capture_output=True, text=True)
    assert done.returncode and "SLURM_" in done.stderr and not list(out.glob("[0-9a-f]" * 8))


def test_slurm_is_asked_for_what_the_options_say(out):
    slurm = SlurmOptions(2, cpus=4, memory="9000M", time="1-12", partition="long,short", account="brain")
    array, ledger = map(asked, write(out, slurm))
    assert array["array"] == "1-2"
    assert (array["cpus-per-task"], ledger["cpus-per-task"]) == ("4", "1")
    for found in (array, ledger):
        assert (found["mem"], found["time"]) == ("9000M", "1-12")
        assert (found["partition"], found["account"]) == ("long,short", "brain")
        assert found["output"].startswith(f'"{out}/logs/'.replace("%", "%%")) and found["output"].endswith('.txt"')
    assert (out / "logs").is_dir()
    assert "requeue" in array and array["signal"].startswith("B:INT@")


def test_the_program_takes_the_place_of_the_shell_so_that_it_hears_the_signals(out):
    array, ledger = write(out, SlurmOptions(2, cpus=4), options=CohortOptions(workers=2))
    last = array[array.index("exec ") :]
    assert shlex.split(last)[1:4] == [sys.executable, "-m", "brainsegnet"]
    assert '--shard "$SLURM_ARRAY_TASK_ID/2" --threads "$((SLURM_CPUS_PER_TASK / 2))"' in last
    assert "--max-memory-gb 1.6" in last
    assert ledger.splitlines()[-1].startswith("exec ")


def test_options_come_back_from_their_words():
    options = CohortOptions(output_layout="sharded", retry="failed", case_minutes=2.5, verify=True)
    segmenting = SegmentOptions(
        tta=True, register=False, slabs=31, max_memory_gb=1.5, reference="t1 c", drawing=DrawingOptions(dpi=90)
    )
    words = ["cohort", "run", "--model", "tumour", "--out", "x", *spell(options, segmenting)]
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert (bound.arguments["cohort"], bound.arguments["options"]) == (options, segmenting)
    assert spell(CohortOptions(), SegmentOptions()) == []


@needs_bash
def test_in_a_container_the_jobs_see_the_cases_and_the_cohort(out, phantoms, tmp_path):
    image = tmp_path / "brainsegnet.sif"
    image.touch()
    array, ledger = write(out, SlurmOptions(2, apptainer=image))
    words = shlex.split(array[array.index("exec ") :])
    assert words[1:4] == ["apptainer", "run", "--cleanenv"]
    seen = [words[place + 1] for place, word in enumerate(words) if word == "--bind"]
    assert str(out) in seen
    assert any(phantoms.is_relative_to(folder) for folder in seen)
    assert words[words.index(str(image)) + 1 :][:2] == ["cohort", "run"]
    assert shlex.split(ledger.splitlines()[-1])[-3:] == ["cohort", "ledger", str(out)]
    for name in ("jobs.sh", "jobs-ledger.sh"):
        subprocess.run(["bash", "-n", out / name], check=True)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"jobs": 0}, "--jobs and --cpus must be 1 or more"),
        ({"jobs": 4}, "--jobs 4 are too many for 3 cases; ask for 3 at most"),
        ({"memory": "six"}, "--memory six is no size; write 6G or 6000M"),
        ({"time": "4 hours"}, "--time 4 hours is no time of Slurm"),
        ({"time": "00:02:00"}, "--time 00:02:00 is too short to open a model; write 5 minutes or more"),
        ({"partition": "a;b"}, "--partition a;b is no name of Slurm's"),
    ],
)
def test_an_array_that_slurm_would_not_take_is_one_sentence(wrong, sentence, out):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        write(out, SlurmOptions(**{"jobs": 3, **wrong}))
    assert not (out / "jobs.sh").exists() and not (out / "logs").exists()


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"options": CohortOptions(shard="1/2")}, UsageError, "--shard is set by the script"),
        ({"segmenting": SegmentOptions(threads=2)}, UsageError, "--threads is set by the script"),
        ({"options": CohortOptions(workers=2)}, UsageError, "--workers 2 need a core each, and --cpus are 1"),
    ],
)
def test_options_that_the_script_sets_are_refused(changes, error, sentence, out):
    with pytest.raises(error, match=re.escape(sentence)):
        write(out, **changes)


def test_what_is_not_there_is_named(out, tmp_path):
    with pytest.raises(DatasetError, match=r"has no manifest\.parquet; begin with brainsegnet cohort find"):
        write_scripts(tmp_path / "other", "tumour", SlurmOptions(2))
    with pytest.raises(ModelError):
        write_scripts(out, "tumor", SlurmOptions(2))
    with pytest.raises(DatasetError, match=r"there is no image .*absent\.sif"):
        write_scripts(out, "tumour", SlurmOptions(2, apptainer=tmp_path / "absent.sif"))


def test_a_script_that_exists_is_kept(out):
    from brainsegnet.cli.app import keep_existing
    from brainsegnet.cohort.slurm import name_scripts

    write(out)
    with pytest.raises(OutputError, match="add --overwrite-script to replace it"):
        keep_existing(name_scripts(out), False, "--overwrite-script")
    keep_existing(name_scripts(out), True, "--overwrite-script")
