"""Standard output and standard error that never stop the work: any text can be written, and a reader may leave."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class SteadyStream:
    """A stream of text that escapes what its encoding lacks, and remembers why it cannot be written.

    Attributes:
        error: Of the first write that failed; what is written after it goes nowhere. None if all was written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write text; a character that the encoding lacks is written as its number."""
        encoding = self._stream.encoding or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._leave(error)
        return len(text)

    def flush(self) -> None:
        """Hand on what is held back."""
        try:
            self._stream.flush()
        except OSError as error:
            self._leave(error)

    @property
    def failure(self) -> OSError | None:
        """Why a file on a full disk, say, could not be written; a reader that left (`| head`) is no failure."""
        return None if isinstance(self.error, BrokenPipeError) else self.error

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._stream, name)

    def _leave(self, error: OSError) -> None:
        """What is held back still, and all that follows, goes nowhere."""
        self.error = self.error or error
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def steady_streams() -> Iterator[SteadyStream]:
    """Both streams of this process as `SteadyStream`s, within the block; it gives standard output.

    Those that were closed before the process began are opened on nothing. Otherwise the next file that is opened would
    get the number of one of them, and what a library prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = [stream or open(os.devnull, "w", encoding="utf-8") for stream in (sys.stdout, sys.stderr)]
    out, err = (SteadyStream(stream) for stream in before)
    sys.stdout, sys.stderr = cast("Any", out), cast("Any", err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
