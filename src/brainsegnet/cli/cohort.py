"""The group `brainsegnet cohort`: from the list of cases to the pages of results. Heavy libraries load when it runs."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from brainsegnet.cli.app import Overwrite, Paths, app, keep_existing, spell, verb
from brainsegnet.cli.bars import CasesBar
from brainsegnet.cli.messages import complain, say, show
from brainsegnet.cohort import CohortOptions, QualityOptions, SlurmOptions
from brainsegnet.inference import SegmentOptions

if TYPE_CHECKING:
    from brainsegnet.cohort.status import Status

cohort = App(name="cohort", help="Segment any number of cases, on one machine or on many, and keep a ledger of them.")
app.command(cohort)


@verb(cohort)
def find(studies: Paths, /, *, out: Path, rescan: bool = False) -> None:
    """Find the cases of a cohort and write DIR/manifest.parquet, before an array of jobs shares them.

    Example: brainsegnet cohort find STUDIES --out DIR

    Parameters
    ----------
    studies
        Folders of cases or raw studies, tables of cases, and tables case,path of raw studies (.csv, .parquet).
    out
        Folder of the cohort.
    rescan
        Search again, and add the cases that are new.
    """
    from brainsegnet.cohort.manifest import prepare_manifest

    with _CohortBar() as bar:
        path = prepare_manifest(studies, out, rescan, bar)
    show(str(path))


@verb(cohort)
def run(
    studies: Paths | None = None,
    /,
    *,
    model: Path,
    out: Path,
    cohort: Annotated[CohortOptions | None, Parameter(name="*")] = None,
    options: Annotated[SegmentOptions | None, Parameter(name="*")] = None,
    rescan: bool = False,
) -> None:
    """Segment the cases of a cohort, each once. The same command goes on where an earlier one stopped.

    Other commands, also on other machines, may work in the same folder at the same time. Ctrl-C ends it after the
    current case.

    Example: brainsegnet cohort run STUDIES --model tumour --out DIR

    Parameters
    ----------
    studies
        As for cohort find. They are searched once, for DIR/manifest.parquet; after that none need be named.
    model
        Name of a shipped model, model folder, or output folder of train.
    out
        Folder of the cohort. Results are in a folder of it that is named after the hash of the model.
    rescan
        Search again, and add the cases that are new.
    """
    from brainsegnet.cohort.run import run_cohort

    with _CohortBar() as bar:
        result = run_cohort(studies or [], out, model, cohort, options, rescan, bar)
    for sentence in result.changed:
        complain(f"{sentence}; --overwrite replaces it")
    if result.done:
        cases, rate = f"{result.done} case{'s' * (result.done != 1)}", 3600 * result.done / result.seconds
        say(f"{cases} segmented in {describe_hours(result.seconds / 3600)}, {rate:.0f} an hour")
    else:
        say("no case was segmented")
    for line in describe(result.status):
        say(line)
    if result.status.failed:
        say(f"why cases failed is in {result.status.folder / 'errors'}; --retry failed tries them again")
    if result.stopped:
        sys.exit(130)
    left = result.status.waiting + result.status.running if result.ended else 0
    if left:
        complain(f"{left} case{'s are' if left > 1 else ' is'} left, because processes were ended; run it again")
    sys.exit(int(bool(result.status.failed or result.changed or left)))


@verb(cohort)
def sbatch(
    *,
    model: Path,
    out: Path,
    slurm: Annotated[SlurmOptions, Parameter(name="*")],
    cohort: Annotated[CohortOptions | None, Parameter(name="*")] = None,
    options: Annotated[SegmentOptions | None, Parameter(name="*")] = None,
    script: Path | None = None,
    overwrite_script: bool = False,
) -> None:
    """Write the scripts of an array of jobs for Slurm, and show the two commands that submit them.

    Example: brainsegnet cohort sbatch --model tumour --out DIR --jobs 100

    Parameters
    ----------
    model
        Name of a shipped model, model folder, or output folder of train.
    out
        Folder of the cohort, after cohort find.
    script
        File of the script; by default DIR/jobs.sh. The script of the ledger is beside it.
    overwrite_script
        Replace scripts that exist already. By default they are refused.
    """
    from brainsegnet.cohort.slurm import name_scripts, write_scripts

    keep_existing(name_scripts(out, script), overwrite_script, "--overwrite-script")
    words = spell(cohort or CohortOptions(), options or SegmentOptions())
    for command in write_scripts(out, model, slurm, words, cohort, options, script):
        show(command)


@verb(cohort)
def status(folder: Path, /) -> None:
    """Show how far a cohort is: cases done, failed, running and waiting, the rate, the time left, kinds of failures.

    Example: brainsegnet cohort status DIR

    Parameters
    ----------
    folder
        Folder of the cohort.
    """
    from brainsegnet.cohort.status import look_at

    for found in look_at(folder):
        for line in describe(found):
            show(line)


@verb(cohort)
def ledger(folders: Paths, /, *, out: Path | None = None, overwrite: Overwrite = False) -> None:
    """Write the table of all cases: status, volumes, warnings, errors, seconds, host. It can be made at any time.

    Example: brainsegnet cohort ledger DIR

    Parameters
    ----------
    folders
        Folders of cohorts, or ledgers. Each folder gets a ledger.parquet beside its results.
    out
        File of one ledger of them all, .parquet; a case that is done in one of them is done.
    """
    from brainsegnet.cohort.ledger import merge_ledgers, write_ledgers
    from brainsegnet.errors import UsageError

    if out is None:
        if files := [path for path in folders if not path.is_dir()]:
            raise UsageError(f"{files[0]} is no folder of a cohort; name one, or merge ledgers with --out")
        for folder in folders:
            for path in write_ledgers(folder):
                say(f"done; see {path}")
        return
    keep_existing([out], overwrite)
    count = merge_ledgers(folders, out)
    say(f"done; {count} cases in {out}")


@verb(cohort)
def report(folder: Path, /, *, options: Annotated[QualityOptions | None, Parameter(name="*")] = None) -> None:
    """Write pages with a thumbnail of every case: first those that failed, are outliers or have warnings.

    It can be given at any time, also while cases are at work. Thumbnails of unchanged results are kept.

    Example: brainsegnet cohort report DIR

    Parameters
    ----------
    folder
        Folder of the cohort. The pages go to the folder report beside the results.
    """
    from brainsegnet.cohort.quality_report import write_quality_reports

    with _CohortBar() as bar:
        found = write_quality_reports(folder, options, bar)
    for one in found:
        drawn = f"{one.drawn} thumbnails drawn, {one.kept} kept"
        say(f"done; {one.first} of {one.cases} cases to look at first; {drawn}; open {one.page}")


def describe(status: "Status") -> list[str]:
    """How far a cohort is, in words."""
    share = f" ({status.done / status.cases:.1%})" if status.cases else ""
    counts = f"{status.done} of {status.cases} cases done{share}, {status.failed} failed, {status.running} running"
    lines = [f"model {status.model}: {counts}, {status.waiting} waiting; {status.folder}"]
    if status.per_hour and status.hours_left is not None:
        left = describe_hours(status.hours_left)
        lines.append(f"{status.per_hour:.0f} cases an hour in the last ten minutes; {left} left")
    lines += [f"failed: {count} {kind}" for kind, count in status.kinds.items()]
    return lines


def describe_hours(hours: float) -> str:
    """A duration in words.

    Examples:
        >>> [describe_hours(hours) for hours in (0.0002, 0.01, 0.5, 30.2, 100)]
        ['1 second', '36 seconds', '30 minutes', '30.2 hours', '4.2 days']
    """
    if hours < 1 / 30:
        seconds = round(3600 * hours)
        return f"{seconds} second{'s' * (seconds != 1)}"
    if hours < 1.5:
        return f"{60 * hours:.0f} minutes"
    return f"{hours:.1f} hours" if hours < 72 else f"{hours / 24:.1f} days"


class _CohortBar(CasesBar):
    """A progress bar, or a line now and then, and a sentence for each case that fails."""

    def on_case(self, name: str, result: Any) -> None:  # noqa: ANN401
        """Say why a case failed."""
        if result.error:
            complain(result.sentence)
