"""The program: its settings, how a verb is registered, and how the cases that failed are reported."""

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Group, Parameter, default_name_transform

from brainsegnet._atomic import refuse_existing
from brainsegnet._machine import describe_environment, describe_small_limit
from brainsegnet.cli.messages import MessageOptions, begin, complain
from brainsegnet.errors import BrainSegNetError

Paths = Annotated[list[Path], Parameter(consume_multiple=False)]
Folders = list[Path]
Names = tuple[str, ...]
Overwrite = Annotated[
    bool, Parameter(help="Replace what exists already at the place of --out. By default it is refused.")
]


def _show(default: object) -> str | None:
    """A default as the help shows it: what is off, absent or empty is not shown."""
    return None if default in (False, None, "", ()) else str(default)


def _name_flag(name: str) -> str:
    """The flag of an argument; `from` is a word of Python, so no argument can have that name."""
    return "from" if name == "start" else default_name_transform(name)


app = App(
    name="brainsegnet",
    help="Find brain lesions in multi-modal MRI with Brain SegNet. Research software, not a medical device.",
    version=describe_environment,
    help_format="markdown",
    version_format="plaintext",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(
        negative_bool=(),
        negative_iterable=(),
        consume_multiple=True,
        show_default=_show,
        name_transform=_name_flag,
    ),
)
_MESSAGES = Group("Messages", sort_key=1)
app.register_install_completion_command(help="Install the completion of this command for your shell.")


def verb(group: App) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as a command of a group. It gets the options of `MessageOptions` beside its own."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def run(*given: Any, messages: MessageOptions | None = None, **named: Any) -> None:  # noqa: ANN401
            begin(messages or MessageOptions(), sys.argv[1:])
            if too_small := describe_small_limit():
                raise BrainSegNetError(too_small)
            function(*given, **named)

        kind = Annotated[MessageOptions | None, Parameter(name="*", group=_MESSAGES)]
        extra = inspect.Parameter("messages", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        signature = inspect.signature(function)
        run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), extra])  # type: ignore[attr-defined]
        run.__annotations__ = {**function.__annotations__, "messages": kind}
        group.command(run)
        return run

    return register


def allow_no(options: type) -> None:
    """Give each option that is on by default a flag that switches it off: `--no-register` beside `--register`."""
    for field in dataclasses.fields(options):
        if field.default is True:
            negative = f"--no-{field.name.replace('_', '-')}"
            options.__annotations__[field.name] = Annotated[bool, Parameter(negative=negative)]


def flatten(options: type) -> None:
    """Give the options within other options flags of their own: `--palette` for `drawing.palette`."""
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(field.type):
            options.__annotations__[field.name] = Annotated[field.type, Parameter(name="*")]


def spell(*options: Any) -> list[str]:  # noqa: ANN401
    """The words that give options their values; what has its default is left out.

    Examples:
        >>> from brainsegnet.inference import SegmentOptions
        >>> spell(SegmentOptions(tta=True, register=False, slabs=31))
        ['--slabs', '31', '--tta', '--no-register']
    """
    words: list[str] = []
    for one in options:
        for field in dataclasses.fields(one):
            value, flag = getattr(one, field.name), _name_flag(field.name)
            if dataclasses.is_dataclass(value):
                words += spell(value)
            elif value == field.default:
                continue
            elif isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else [value])]
    return words


def keep_existing(outputs: Iterable[Path], overwrite: bool, flag: str = "--overwrite") -> None:
    """Refuse to replace files, before any work. `flag` is the option that sets `overwrite`.

    Raises:
        OutputError: one of the outputs exists, and `overwrite` is not set.
    """
    if not overwrite:
        refuse_existing(dict.fromkeys((path for path in outputs if path.is_file()), ""), can_skip=False, flag=flag)


def report_failures(failures: Mapping[str, str], done: int) -> None:
    """Print a sentence for each case that failed, and end with exit code 1 if there is one."""
    if failures:
        for sentence in failures.values():
            complain(sentence)
        complain(f"{len(failures)} of {len(failures) + done} cases could not be done; {done or 'none'} could")
        sys.exit(1)


def report_left_out(sentences: Sequence[str]) -> None:
    """Write a sentence on each folder that was not recognised, and how many there are."""
    for sentence in sentences:
        complain(sentence)
    if sentences:
        folders = "1 folder is" if len(sentences) == 1 else f"{len(sentences)} folders are"
        complain(f"{folders} left out, beside the cases that were found")
