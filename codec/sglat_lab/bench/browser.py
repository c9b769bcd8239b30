"""Headless Chromium over the DevTools protocol, through a pipe: pages, scripts, screenshots.

Protocol: https://chromedevtools.github.io/devtools-protocol/.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from sglat.errors import SglatError

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
WEBGPU: Final = (
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
    "--enable-features=Vulkan",
)
"""Flags that give WebGPU in software."""
TIMEOUT_SECONDS: Final = 120.0  # of one answer
_COMMON: Final = (
    "--headless=new",
    "--no-sandbox",
    "--no-first-run",
    "--disable-extensions",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--enable-unsafe-swiftshader",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-gpu-watchdog",  # on a busy machine drawing in software takes longer
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """Return the program, or None where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One browser with a profile of its own, which ends with it."""

    def __init__(self, *flags: str) -> None:
        program = find_chromium()
        if program is None:
            raise SglatError("no-browser", f"expected one of {', '.join(NAMES)}, found none")
        self._profile = tempfile.TemporaryDirectory(
            prefix="sglat-browser-", ignore_cleanup_errors=True
        )
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()

        def connect() -> None:
            kept = os.dup(theirs_out) if theirs_out == 3 else theirs_out
            os.dup2(theirs_in, 3)
            os.dup2(kept, 4)

        self._process = subprocess.Popen(
            [program, *_COMMON, *flags, f"--user-data-dir={self._profile.name}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=connect,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest = b""
        self._number = 0
        self._pages: dict[str, Page] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def page(self, *, width: int = 1000, height: int = 800) -> Page:
        """Open an empty page, CSS pixels."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        page = Page(self, str(attached["sessionId"]))
        self._pages[page.session] = page
        for domain in ("Runtime", "Log", "Page"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        return page

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> Any:
        """Send a command and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        self._send(json.dumps(message).encode() + b"\0")
        end = time.monotonic() + TIMEOUT_SECONDS
        while True:
            answer = self._receive(end, method)
            if answer.get("id") == message["id"]:
                break
            self._note(answer)
        if "error" in answer:
            raise SglatError("browser", f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    def _send(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._out, data) :]

    def _receive(self, end: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._in], [], [], left)[0]:
                raise SglatError("browser", f"no answer to {method} in {TIMEOUT_SECONDS:g} s")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise SglatError("browser", "the browser has ended")
            self._rest += data
        first, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(first))

    def _note(self, event: dict[str, Any]) -> None:
        page = self._pages.get(event.get("sessionId", ""))
        if page is not None:
            page.note(event.get("method", ""), event.get("params", {}))

    def close(self) -> None:
        """End the browser and remove its profile."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for handle in (self._in, self._out):
            os.close(handle)
        self._profile.cleanup()


class Page:
    """One page; `complaints` are its console errors and uncaught exceptions."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self.session = session
        self.complaints: list[str] = []
        self._is_loaded = False

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command to the page."""
        return self.browser.call(method, session=self.session, **parameters)

    def open(self, url: str) -> None:
        """Load an address."""
        self._is_loaded = False
        self.call("Page.navigate", url=url)
        end = time.monotonic() + TIMEOUT_SECONDS
        while not self._is_loaded and time.monotonic() < end:
            self.call("Runtime.evaluate", expression="0")
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise's when it is settled."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise SglatError("browser", _exception(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_for(self, expression: str, *, seconds: float = TIMEOUT_SECONDS) -> Any:
        """Return the value of an expression as soon as it is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := self.evaluate(expression):
                return value
            time.sleep(0.05)
        raise SglatError("browser", f"not true in {seconds:g} s: {expression}")

    def resize(self, width: int, height: int) -> None:
        """Set the size of the view."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 500,
        )  # fmt: skip

    def prefer(self, **media: str) -> None:
        """Set media features, such as `prefers_color_scheme="dark"`."""
        features = [{"name": k.replace("_", "-"), "value": v} for k, v in media.items()]
        self.call("Emulation.setEmulatedMedia", features=features)

    def press(self, key: str) -> None:
        """Press and release a key."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path: Path) -> None:
        """Write a PNG of the view."""
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def note(self, method: str, parameters: dict[str, Any]) -> None:
        """Take up an event."""
        if method == "Page.loadEventFired":
            self._is_loaded = True
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(_exception(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.complaints.append(" ".join(str(a.get("value")) for a in parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.complaints.append(str(parameters["entry"]["text"]))


def _exception(details: dict[str, Any]) -> str:
    found = details.get("exception", {}).get("description") or details.get("text", "")
    return str(found)
