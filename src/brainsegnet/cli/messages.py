"""What a command says: results, messages, details and errors, on the terminal and in a log file.

Results, tables and messages go to standard output; details, progress, warnings and errors go to standard error.
"""

import re
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from brainsegnet.cli.console import SteadyStream
from brainsegnet.errors import OutputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from brainsegnet.metrics.table import Table

_LOG_START = re.compile(r"\d{4}-\d\d-\d\dT\S+ start ")
"""How a log begins; other files are not added to."""


@dataclass(frozen=True)
class MessageOptions:
    """How much a command says, and where. These are options of every verb.

    Raises:
        UsageError: quiet and verbose exclude each other.
    """

    quiet: bool = False
    "Show no messages and no progress, only tables, warnings and errors."
    verbose: Annotated[bool, Parameter(alias="-v")] = False
    "Show details too: versions, the machine, the stages of each case, and the traceback of an error."
    log: Path | None = None
    "File that gets messages, details, warnings and errors, each with its time. A log that exists is continued."

    def __post_init__(self) -> None:
        if self.quiet and self.verbose:
            raise UsageError("--quiet and --verbose exclude each other; leave one out")


class _Command:
    """The command that runs in this process."""

    def __init__(self) -> None:
        self.options, self.begun, self.start = MessageOptions(), False, time.monotonic()
        self.log: SteadyStream | None = None
        self.live: Console | None = None


_command = _Command()


def begin(options: MessageOptions, words: Sequence[str]) -> None:
    """Begin a command that was typed in these words: open its log, and tell versions and machine as details.

    Raises:
        OutputError: the log cannot be written, or is a file of another kind.
    """
    _command.options, _command.begun, _command.start = options, True, time.monotonic()
    if options.log is not None:
        _command.log = _open_log(options.log)
    if options.log is not None or options.verbose:
        from brainsegnet._machine import describe_environment

        _add_to_log("start", f"brainsegnet {shlex.join(words)}")
        for line in describe_environment().splitlines():
            detail(line)


def has_begun() -> bool:
    """Whether a command has begun, so that its options are right."""
    return _command.begun


def end(code: int) -> OSError | None:
    """End the command and its log. Returns the error of the log, if it could not be written."""
    failure = None
    if _command.begun:
        detail(f"ended with exit code {code} after {time.monotonic() - _command.start:.1f} s")
    if log := _command.log:
        log.flush()
        failure = log.failure
        log.close()
    _command.__init__()  # type: ignore[misc]
    return failure


def is_quiet() -> bool:
    """Whether messages and progress are not shown."""
    return _command.options.quiet


def go_live(console: "Console | None") -> None:
    """Write on a terminal through the console of a progress bar from now on; None ends it."""
    _command.live = console


def show(text: str) -> None:
    """Write a line of the result that the command was asked for, on standard output."""
    _add_to_log("result", text)
    _write(sys.stdout, text)


def show_table(table: "Table") -> None:
    """Write a table on standard output, also if the command is quiet."""
    from rich.console import Console

    if _command.log:
        _add_to_log("result", table.to_markdown())
    Console().print(table.to_rich())


def say(text: str) -> None:
    """Write a message on standard output."""
    _add_to_log("message", text)
    if not _command.options.quiet:
        _write(sys.stdout, text)


def detail(text: str) -> None:
    """Write a line on standard error if the command is verbose."""
    _add_to_log("detail", text)
    if _command.options.verbose:
        _write(sys.stderr, text)


def complain(text: str) -> None:
    """Write a warning or an error on standard error, in one line."""
    text = " ".join(text.splitlines())
    _add_to_log("error", text)
    _write(sys.stderr, f"brainsegnet: {text}")


def note_progress(text: str) -> None:
    """Add a line on the progress to the log."""
    _add_to_log("progress", text)


def trace() -> None:
    """Write the traceback of the current error if the command is verbose."""
    for line in traceback.format_exc().splitlines():
        detail(line)


def _write(stream: Any, text: str) -> None:  # noqa: ANN401
    text = show_controls(text)
    if _command.live and stream.isatty():
        _command.live.print(text, highlight=False, soft_wrap=True, markup=False, emoji=False)
        return
    stream.write(f"{text}\n")
    stream.flush()


def _open_log(path: Path) -> SteadyStream:
    try:
        file = path.open("a+", encoding="utf-8", errors="backslashreplace")
        file.seek(0)
        start = file.read(80)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise OutputError(f"{path} cannot be written as a log: {reason}; name another file with --log") from error
    if start and not _LOG_START.match(start):
        file.close()
        raise OutputError(f"{path} is there already and is no log; name another file with --log")
    return SteadyStream(file)


def _add_to_log(kind: str, text: str) -> None:
    if log := _command.log:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        log.write("".join(f"{now} {kind} {line}\n" for line in show_controls(text).splitlines()))
        log.flush()


def show_controls(text: str) -> str:
    r"""Text with its control characters, except tabs and ends of lines, as escapes, so that no terminal obeys them.

    Examples:
        >>> print(show_controls("a\x1b[2Jb"))
        a\x1b[2Jb
    """
    return "".join(f"\\x{ord(c):02x}" if (ord(c) < 32 and c not in "\n\t") or c == "\x7f" else c for c in text)
