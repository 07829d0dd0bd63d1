"""The command bids, with the arguments of a BIDS App. Heavy libraries load when it runs."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from brainsegnet.cli.app import app, report_failures, report_left_out, verb
from brainsegnet.cli.bars import CasesBar
from brainsegnet.cli.messages import complain, say
from brainsegnet.cohort import BidsOptions
from brainsegnet.inference import SegmentOptions
from brainsegnet.reporting import ReportOptions

Level = Literal["participant", "group"]
ALIASES = {"skip_bids_validation": "--skip-bids-validator", "session_label": "--session-id"}
"""What older BIDS Apps call some options."""
for _name, _alias in ALIASES.items():
    BidsOptions.__annotations__[_name] = Annotated[BidsOptions.__annotations__[_name], Parameter(alias=_alias)]


@verb(app)
def bids(
    bids_dir: Path,
    output_dir: Path,
    analysis_level: Level,
    /,
    *,
    model: Path | None = None,
    which: Annotated[BidsOptions | None, Parameter(name="*")] = None,
    options: Annotated[SegmentOptions | None, Parameter(name="*")] = None,
    pages: Annotated[ReportOptions | None, Parameter(name="*")] = None,
) -> None:
    """Segment a BIDS data set, and write BIDS derivatives: the interface of a BIDS App.

    The same command continues a run that was stopped: results that are complete are left out.

    Example: brainsegnet bids DATA DATA/derivatives/brainsegnet participant --participant-label 01 02

    Example: brainsegnet bids DATA DATA/derivatives/brainsegnet group

    Parameters
    ----------
    bids_dir
        The BIDS data set.
    output_dir
        Folder of the derivatives.
    analysis_level
        participant segments each participant and session. group then writes the volumes of all as tables.
    model
        Name of a shipped model, model folder, or output folder of train. By default as for segment.
    """
    if analysis_level == "group":
        _write_tables(bids_dir, output_dir, which)
        return
    from brainsegnet.cohort.bids import run_participants

    with _VisitsBar() as bar:
        done = run_participants(bids_dir, output_dir, model, which, options, pages, bar)
    report_left_out(done.left_out)
    report_failures(done.failures, len(done.done) + len(done.skipped))


def _write_tables(bids_dir: Path, output_dir: Path, which: BidsOptions | None) -> None:
    from brainsegnet.cohort.bids_tables import write_tables

    for table in write_tables(bids_dir, output_dir, which):
        say(f"{table.visits} {'result' if table.visits == 1 else 'results'} in {table.path}")
        if table.absent:
            some = ", ".join(table.absent[:6]) + (", ..." if len(table.absent) > 6 else "")
            complain(f"{table.path.name} has no volumes of {some}; they have no result")


class _VisitsBar(CasesBar):
    """Says the volumes and warnings of each participant and session that is done."""

    def on_case(self, name: str, result: Any) -> None:  # noqa: ANN401
        """Write a line, and one for each warning."""
        volumes = ", ".join(f"{region} {ml:.1f} ml" for region, ml in result.report["volumes_ml"]["regions"].items())
        say(f"{name}: {'nothing found' if result.is_empty else volumes}; {result.seconds:.1f} s; {result.path}")
        for warning in result.report["warnings"]:
            complain(f"{name}: warning: {warning}")
