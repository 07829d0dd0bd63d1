"""The program itself, and how its verbs speak: sentences on standard output, complaints on standard error."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter, default_name_transform

Paths = Annotated[list[Path], Parameter(consume_multiple=False)]
Folders = list[Path]
Names = tuple[str, ...]


def _show(default: object) -> str | None:
    """A default as the help shows it: what is off, absent or empty is not shown."""
    return None if default in (False, None, "", ()) else str(default)


def _name_flag(name: str) -> str:
    """The flag of an argument; `from` is a word of Python, so no argument can have that name."""
    return "from" if name == "start" else default_name_transform(name)


def _version() -> str:
    from brainsegnet._machine import describe_environment

    return describe_environment()


app = App(
    name="brainsegnet",
    help="Find brain lesions in multi-modal MRI with Brain SegNet. Research software, not a medical device.",
    version=_version,
    help_format="markdown",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(
        negative_bool=(),
        negative_iterable=(),
        consume_multiple=True,
        show_default=_show,
        name_transform=_name_flag,
    ),
)
app.register_install_completion_command(help="Install the completion of this command for your shell.")


def report_failures(failures: Mapping[str, str], done: int) -> None:
    """End with exit code 1 if any of many cases could not be done, after a sentence for each."""
    if failures:
        for sentence in failures.values():
            complain(sentence)
        complain(f"{len(failures)} of {len(failures) + done} cases could not be done; {done or 'none'} could")
        sys.exit(1)


def say(text: str) -> None:
    """A line on standard output."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(f"brainsegnet: {' '.join(text.splitlines())}\n")
