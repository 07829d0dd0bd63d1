"""Scripts for Slurm: an array of jobs, each with a part of a cohort, and a job that writes the ledger afterwards.

A job is `cohort run --shard i/N`. Slurm sends SIGTERM to a job that is cancelled or has to make room for another, and
the job gives its cases back. It sends SIGINT before the end of its time, and the job stops after the current case.
"""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from brainsegnet._atomic import writable, write_text
from brainsegnet.cohort import CohortOptions, SlurmOptions
from brainsegnet.cohort.manifest import MANIFEST, read_manifest, read_sizes
from brainsegnet.errors import DatasetError, OutputError, UsageError
from brainsegnet.inference import SegmentOptions
from brainsegnet.model.store import resolve_model

SCRIPT, LOGS = "jobs.sh", "logs"
STOP_SECONDS = 120
"""How long before the end of its time a job stops after the current case."""
_THREADS = ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def name_scripts(out: Path, script: Path | None = None) -> tuple[Path, Path]:
    """The script of the array and that of the ledger.

    Examples:
        >>> [path.name for path in name_scripts(Path("cohort"))]
        ['jobs.sh', 'jobs-ledger.sh']
    """
    array = Path(os.path.abspath(script or out / SCRIPT))
    return array, array.with_name(f"{array.stem}-ledger{array.suffix}")


def write_scripts(
    out: Path,
    model: Path | str,
    slurm: SlurmOptions,
    words: Sequence[str] = (),
    options: CohortOptions | None = None,
    segmenting: SegmentOptions | None = None,
    script: Path | None = None,
) -> list[str]:
    """Write the scripts of an array of jobs and of its ledger, and make the folder of its logs.

    Args:
        out: Folder of the cohort, with its manifest.
        model: As for `run_cohort`.
        slurm: The array.
        words: `options` and `segmenting` as they are typed for `cohort run`.
        options: How the cohort is processed.
        segmenting: How to segment.
        script: File of the script; by default `out/jobs.sh`. That of the ledger is beside it.

    Returns:
        The two commands that submit them.

    Raises:
        DatasetError: the cohort has no manifest.
        ModelError: the model cannot be used.
        OutputError: a script cannot be written, or a path in it is none that Slurm or Apptainer takes.
        UsageError: there are more jobs than cases, or an option is one that the script sets itself.
    """
    options, segmenting = options or CohortOptions(), segmenting or SegmentOptions()
    out = Path(os.path.abspath(out))
    _check(out, slurm, options, segmenting)
    resolve_model(model)
    named = os.path.abspath(model) if Path(model).is_dir() else str(model)
    array, ledger = name_scripts(out, script)
    run = ["cohort", "run", "--model", named, "--out", str(out), *words]
    threads = f"$((SLURM_CPUS_PER_TASK / {options.workers}))" if options.workers > 1 else "$SLURM_CPUS_PER_TASK"
    if segmenting.max_memory_gb is None:
        run += ["--max-memory-gb", f"{slurm.memory_gb / 2 / options.workers:.2g}"]
    program = _name_program(slurm, out, named)
    call = f'exec {program} {shlex.join(run)} \\\n    --shard "$SLURM_ARRAY_TASK_ID/{slurm.jobs}" --threads "{threads}"'
    first, second = [
        f"jobs=$(sbatch --parsable {shlex.quote(str(array))})",
        f"sbatch --dependency=afterany:$jobs {shlex.quote(str(ledger))}",
    ]
    lines = [*_ask_for(slurm, out, array=True), "", *_say_purpose(slurm, first, second), *_set_up(), "", call]
    end = f"exec {program} cohort ledger {shlex.quote(str(out))}"
    for path in (array, ledger):
        writable(path, ())
    (out / LOGS).mkdir(exist_ok=True)
    write_text("\n".join(lines) + "\n", array)
    write_text("\n".join([*_ask_for(slurm, out, array=False), "", "set -eu", end]) + "\n", ledger)
    return [first, second]


def _check(out: Path, slurm: SlurmOptions, options: CohortOptions, segmenting: SegmentOptions) -> None:
    if not (manifest := out / MANIFEST).exists():
        raise DatasetError(f"{out} has no {MANIFEST}; begin with brainsegnet cohort find STUDIES --out {out}")
    for name, value in (("shard", options.shard), ("threads", segmenting.threads)):
        if value:
            raise UsageError(f"--{name} is set by the script, from --jobs and --cpus; leave it out")
    if segmenting.brain_mask is not None:
        raise UsageError("--brain-mask is the mask of one case; leave it out for a cohort")
    if options.workers > slurm.cpus:
        raise UsageError(f"--workers {options.workers} need a core each, and --cpus are {slurm.cpus}; raise --cpus")
    if slurm.jobs > (cases := len(read_sizes(manifest))):
        raise UsageError(f"--jobs {slurm.jobs} are too many for {cases} cases; ask for {cases} at most")


def _ask_for(slurm: SlurmOptions, out: Path, array: bool) -> Iterator[str]:
    """The first lines, which Slurm reads."""
    logs = str(out / LOGS).replace("%", "%%")
    if {'"', "\\", "\n"} & {*str(out)}:
        raise OutputError(f"{out} cannot stand in a script of Slurm, for its quotes or backslashes; rename the folder")
    yield "#!/bin/bash"
    yield f"#SBATCH --job-name=brainsegnet{'' if array else '-ledger'}"
    if array:
        yield f"#SBATCH --array=1-{slurm.jobs}"
    yield f"#SBATCH --cpus-per-task={slurm.cpus if array else 1}"
    yield f"#SBATCH --mem={slurm.memory}"
    yield f"#SBATCH --time={slurm.time}"
    for name in ("partition", "account"):
        if value := getattr(slurm, name):
            yield f"#SBATCH --{name}={value}"
    yield f'#SBATCH --output="{logs}/%A-%a.txt"' if array else f'#SBATCH --output="{logs}/%j-ledger.txt"'
    if array:
        yield "#SBATCH --open-mode=append"
        yield "#SBATCH --requeue"
        yield f"#SBATCH --signal=B:INT@{STOP_SECONDS}"


def _say_purpose(slurm: SlurmOptions, *commands: str) -> Iterator[str]:
    yield f"# Job i of {slurm.jobs} segments part i of a cohort. Submit the jobs, and then the ledger:"
    for command in commands:
        yield f"#   {command}"
    yield "# The same two commands continue where jobs were stopped."
    yield ""


def _set_up() -> Iterator[str]:
    yield "set -eu"
    yield f"export {' '.join(f'{name}=$SLURM_CPUS_PER_TASK' for name in _THREADS)}"


def _name_program(slurm: SlurmOptions, out: Path, model: str) -> str:
    """The words that start the program, by itself or in a container that sees the cohort, its cases and the model."""
    if slurm.apptainer is None:
        return shlex.join([sys.executable, "-m", "brainsegnet"])
    image = Path(os.path.abspath(slurm.apptainer))
    if not image.is_file():
        raise DatasetError(f"there is no image {image}; build it with apptainer build, or leave out --apptainer")
    binds = []
    for folder in (out, *_list_folders(out, model)):
        if {",", ":"} & {*str(folder)}:
            raise OutputError(f"{folder} cannot be seen in a container, for its comma or colon; rename the folder")
        binds += ["--bind", shlex.quote(str(folder))]
    threads = [f'--env "{name}=$SLURM_CPUS_PER_TASK"' for name in _THREADS]
    return " ".join(["apptainer run --cleanenv", *binds, *threads, shlex.quote(str(image))])


def _list_folders(out: Path, model: str) -> list[Path]:
    """Folders that hold all files of the cases, and the folder of the model; few, high ones where there are many."""
    homes = {Path(model)} if os.path.isabs(model) else set[Path]()
    for entry in read_manifest(out / MANIFEST):
        homes |= {Path(path).parent for path in (*entry.images.values(), *filter(None, [entry.path]))}
    return sorted(_join(homes, out))


def _join(homes: set[Path], out: Path) -> set[Path]:
    """The common folder of those that share more than the root."""
    tops: dict[tuple[str, ...], list[Path]] = {}
    for home in homes:
        tops.setdefault(home.parts[:2], []).append(home)
    common = {Path(os.path.commonpath(some)) for some in tops.values()}
    return {folder for folder in common if not folder.is_relative_to(out)}
