"""Standard output and standard error that accept any text, and that let the work continue if a reader leaves."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast


class SteadyStream:
    """A text stream that escapes characters outside its encoding, and that keeps the first error of a write.

    Attributes:
        error: Error of the first write that failed, or None. Later text is discarded.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write text. A character outside the encoding is written as an escape."""
        encoding = self._stream.encoding or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except OSError as error:
            self._leave(error)
        return len(text)

    def flush(self) -> None:
        """Write the buffered text."""
        try:
            self._stream.flush()
        except OSError as error:
            self._leave(error)

    @property
    def failure(self) -> OSError | None:
        """Why the output could not be written, for example a full disk. A reader that left (`| head`) is no failure."""
        return None if isinstance(self.error, BrokenPipeError) else self.error

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._stream, name)

    def _leave(self, error: OSError) -> None:
        """Discard the buffered text and all that follows."""
        self.error = self.error or error
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def steady_streams() -> Iterator[SteadyStream]:
    """Replace both streams of this process by `SteadyStream`s within the block.

    A stream that was closed before the process started is opened on the null device. Otherwise the next opened file
    would get its number, and with it what libraries print.

    Yields:
        Standard output.
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
