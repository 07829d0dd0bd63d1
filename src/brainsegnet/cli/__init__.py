"""The command line, and how it ends: an exit code, and at most one sentence on standard error.

Code 0 is success, 1 an error that the user can correct, and 2 a command that is typed wrong: also if an option is out
of range, or two exclude each other. A signal gives 128 plus its number.
"""

import signal
import sys
import threading

from cyclopts import CycloptsError, MissingArgumentError

from brainsegnet.cli import bids, cohort, follow, groups, messages, report, segment, train, view  # noqa: F401
from brainsegnet.cli.app import app
from brainsegnet.cli.console import steady_streams
from brainsegnet.cli.messages import complain

STOPPING = ("SIGTERM", "SIGHUP")
"""Signals that end a command, if the process does not ignore them (as under `nohup`)."""


def main() -> None:
    """Run a command, and end with an exit code and at most one sentence on standard error."""
    with steady_streams() as out:
        code = 1
        try:
            code = _run()
            out.flush()
            if out.failure:
                complain(f"standard output cannot be written: {out.failure.strerror or out.failure}")
                code = code or 1
        except Exception:
            messages.trace()
            raise
        finally:
            if failure := messages.end(code):
                complain(f"the log cannot be written: {failure.strerror or failure}")
                code = code or 1
        if code:
            sys.exit(code)


def _run() -> int:
    """Run a command. Returns its exit code."""
    threading.excepthook = _leave_to_main_thread
    for name in STOPPING:
        if hasattr(signal, name) and signal.getsignal(number := getattr(signal, name)) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        app(sys.argv[1:], result_action="return_value", exit_on_error=False, print_error=False)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        sentence, code = _describe(error)
        messages.trace()
        complain(sentence)
        return code
    return 0


def _describe(error: BaseException) -> tuple[str, int]:
    """The sentence and the exit code of an error. An error of the program itself is raised again."""
    from brainsegnet._machine import tells_of_memory
    from brainsegnet.errors import BrainSegNetError, Interrupted, UsageError

    match error:
        case CycloptsError():
            return _describe_mistyped(error), 2
        case BrainSegNetError():
            usage = isinstance(error, UsageError) or not messages.has_begun()
            return str(error), 2 if usage else 1
        case ImportError() if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
            return "interrupted", 130
        case MemoryError() | RuntimeError() | ImportError() | SystemError() if tells_of_memory(error):
            return (
                "there is not enough memory, or its limit (ulimit -v) is too small; "
                "segment with a smaller --max-memory-gb, or train with a smaller recipe"
            ), 1
        case OSError():
            return f"{error.filename or 'a file'}: {error.strerror or error}", 1
        case KeyboardInterrupt():
            return "interrupted", 130
        case Interrupted():
            return f"{error}; continue with --resume", 128 + error.number
    raise error


def _describe_mistyped(error: CycloptsError) -> str:
    """What was typed wrong; of what was not typed at all, that it is needed."""
    verb = " ".join(error.command_chain or ())
    if isinstance(error, MissingArgumentError) and error.argument and error.keyword is None:
        return f"{verb} needs {error.argument.name}; see: brainsegnet {verb} --help"
    return str(error)


def _leave_to_main_thread(failure: threading.ExceptHookArgs) -> None:
    """A full disk that a thread of TensorBoard's meets is told by the main thread, in one sentence."""
    if not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)
