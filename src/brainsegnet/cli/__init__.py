"""The command line, and the ends it can come to: exit code 0, 1 with one sentence, or 128 plus a signal's number."""

import sys

from brainsegnet.cli.verbs import app, complain


def main() -> None:
    """Run a verb; what a user can mend is one sentence and exit code 1, a signal 128 plus its number."""
    from brainsegnet.errors import BrainSegNetError

    try:
        app(result_action="return_value")
    except BrainSegNetError as error:
        complain(str(error))
        sys.exit(1)
    except MemoryError:
        complain("there is not enough memory; segment with --slabs 31, or train with a smaller recipe")
        sys.exit(1)
    except OSError as error:
        complain(f"{error.filename or 'a file'}: {error.strerror or error}")
        sys.exit(1)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)
    except Exception as error:
        if type(error).__name__ != "Interrupted":
            raise
        complain(f"{error}; continue with --resume")
        sys.exit(128 + getattr(error, "number", 2))
