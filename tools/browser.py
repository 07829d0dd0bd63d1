"""Drives Chromium without a window through its debugging pipe, for tests of pages."""

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-3d-apis", "--disable-background-networking",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--remote-debugging-pipe",
)  # fmt: skip
_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
"""WebGL on the CPU."""
_EXEC = (
    "import fcntl, os, sys\n"
    "ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]\n"
    "os.dup2(ends[0], 3), os.dup2(ends[1], 4)\n"
    "os.execvp(sys.argv[3], sys.argv[3:])"
)
"""Chromium reads commands from file descriptor 3 and writes answers to 4."""
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "PageUp": 33, "PageDown": 34, "Tab": 9}
RIGHT = {"left": 1, "right": 2}
_LEFT = ("navigated or closed", "context was destroyed", "Cannot find context", "Cannot find default execution context")
"""What Chromium answers when a page was left while a script ran in it."""


class PageLeft(RuntimeError):
    """The page was left before a script in it had a value."""


def find_browser() -> str | None:
    """Path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """A Chromium with one page, without WebGL unless it is asked for.

    Attributes:
        errors: What the page wrote to its console as an error, and what was not caught.
        requests: Addresses that the page asked for, but for `file:`, `data:` and `blob:`.
    """

    def __init__(self, program: str, profile: Path, width: int = 1280, height: int = 900, webgl: bool = False) -> None:
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._numbers, self._rest, self._session = itertools.count(1), b"", ""
        flags = [flag for flag in _FLAGS if flag != "--disable-3d-apis"] + [*_WEBGL] if webgl else _FLAGS
        command = [sys.executable, "-c", _EXEC, str(commands), str(answers), program, *flags]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}"],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        page = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def send(self, method: str, **params: Any) -> Any:  # noqa: ANN401
        """Send a command of the DevTools protocol, and wait for its answer.

        Raises:
            PageLeft: the page was left meanwhile.
            RuntimeError: the browser refuses the command, or has ended.
            TimeoutError: there is no answer within a minute.
        """
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                if "error" in answer:
                    said = answer["error"]["message"]
                    kind = PageLeft if any(words in said for words in _LEFT) else RuntimeError
                    raise kind(f"{method}: {said}")
                return answer["result"]
            self._note(answer)

    def _receive(self, seconds: float = 60) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._from], [], [], seconds)[0]:
                raise TimeoutError("the browser does not answer")
            piece = os.read(self._from, 1 << 20)
            if not piece:
                raise RuntimeError("the browser has ended")
            self._rest += piece
        first, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(first)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(params["exceptionDetails"].get("exception", params)))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(str(params["args"]))
        elif method == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("file:", "data:", "blob:")):
                self.requests.append(url)

    def open(self, page: Path) -> None:
        """Open a page from disk."""
        self.send("Page.navigate", url=page.resolve().as_uri())

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        """Set the size of the page in pixels, and how many device pixels one of them has."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def set_scheme(self, scheme: str) -> None:
        """Prefer `light` or `dark`."""
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def run(self, script: str) -> Any:  # noqa: ANN401
        """The value of an expression in the page; a promise is awaited."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def leave(self, script: str) -> None:
        """Run a script that opens another page; the next `wait` may meet either of the two."""
        with contextlib.suppress(PageLeft):
            self.run(script)

    def wait(self, condition: str, seconds: float = 120) -> None:
        """Wait until an expression, or the promise that it gives, is true, on this page or on one that follows it."""
        end = time.monotonic() + seconds
        while not self._holds(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {condition}; errors: {self.errors}")
            time.sleep(0.02)

    def _holds(self, condition: str) -> bool:
        try:
            return bool(self.run(f"Promise.resolve({condition}).then(Boolean)"))
        except PageLeft:
            return False

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def press(self, key: str) -> None:
        """Press and release a key."""
        facts: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": KEYS.get(key, ord(key[0].upper()))}
        if len(key) == 1:
            facts["text"] = key
        self.send("Input.dispatchKeyEvent", type="keyDown", **facts)
        self.send("Input.dispatchKeyEvent", type="keyUp", **facts)
        self.settle()

    def drag(self, start: tuple[float, float], end: tuple[float, float] | None = None, button: str = "left") -> None:
        """Press a button at a point of the page, move, and release it; without an end, click."""
        x, y = start
        buttons = RIGHT[button]
        self.send(
            "Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button=button, clickCount=1, buttons=buttons
        )
        if end:
            self.send("Input.dispatchMouseEvent", type="mouseMoved", x=end[0], y=end[1], button=button, buttons=buttons)
            x, y = end
        self.send("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button=button, clickCount=1)
        self.settle()

    def wheel(self, at: tuple[float, float], down: float) -> None:
        """Turn the wheel."""
        self.send("Input.dispatchMouseEvent", type="mouseWheel", x=at[0], y=at[1], deltaX=0, deltaY=down)
        self.settle()

    def download_to(self, folder: Path) -> None:
        """Allow downloads into a folder."""
        session, self._session = self._session, ""
        self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self._session = session

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """Write the page as PNG: what is seen, or all of it."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))
