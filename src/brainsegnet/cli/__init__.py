"""The command line, and how it ends: an exit code, and at most one sentence on standard error.

Code 0 is success, 1 an error that the user can correct, and 2 a command that is typed wrong. A signal gives 128 plus
its number.
"""

import signal
import sys
import threading

from cyclopts import CycloptsError, MissingArgumentError

from brainsegnet.cli import groups, segment, train  # noqa: F401
from brainsegnet.cli.app import app, complain


def main() -> None:
    """Run a command, and end with an exit code and at most one sentence on standard error."""
    from brainsegnet.errors import BrainSegNetError, Interrupted

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.excepthook = _leave_to_main_thread
    try:
        app(sys.argv[1:], result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        complain(_describe_mistyped(error))
        sys.exit(2)
    except BrainSegNetError as error:
        complain(str(error))
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "out of memory" not in str(error):
            raise
        complain("there is not enough memory; segment with a smaller --max-memory-gb, or train with a smaller recipe")
        sys.exit(1)
    except OSError as error:
        complain(f"{error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(1)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)
    except Interrupted as error:
        complain(f"{error}; continue with --resume")
        sys.exit(128 + error.number)


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
