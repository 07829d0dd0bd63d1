"""The command follow: studies of one patient over time."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainsegnet._atomic import OutputOptions
from brainsegnet.cli.app import Paths, app, verb
from brainsegnet.cli.bars import CasesBar
from brainsegnet.cli.messages import complain, say
from brainsegnet.followup import FollowOptions
from brainsegnet.inference import SegmentOptions


@verb(app)
def follow(
    studies: Paths,
    /,
    *,
    out: Path,
    model: Path | None = None,
    asked: Annotated[FollowOptions | None, Parameter(name="*")] = None,
    options: Annotated[SegmentOptions | None, Parameter(name="*")] = None,
    output: Annotated[OutputOptions | None, Parameter(name="*")] = None,
) -> None:
    """Compare studies of one patient over time: volumes, diameters, and new, grown, shrunk and vanished lesions.

    Example: brainsegnet follow STUDY1 STUDY2 --out followup/

    Parameters
    ----------
    studies
        Two or more: raw studies or prepared cases, as for segment, or label maps of segment, whose JSON tells the
        images. They are ordered by acquisition date where all headers give one, else as given.
    out
        Folder for follow-up.html, follow-up.json and follow-up.csv, and for the results of studies segmented here.
    model
        Model for studies that are not segmented yet, as for segment.
    """
    from brainsegnet.followup.follow import PAGE
    from brainsegnet.followup.follow import follow as run

    with CasesBar() as bar:
        timeline = run(studies, out, model, options, bar, output, asked)
    for sentence in timeline.warnings:
        complain(f"warning: {sentence}")
    say(timeline.ordered)
    for region, changes in timeline.since_first.items():
        volumes = " to ".join(f"{ml:.1f}" for ml in timeline.volumes[region])
        say(f"{region}: {volumes} ml, {changes[-1].verdict} since the first study")
    say(f"done; open {out / PAGE}")
