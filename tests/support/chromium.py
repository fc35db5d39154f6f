"""Headless Chromium, spoken to over a pipe: enough to open a page, look at it and press its keys.

The one that the variable CHROMIUM names, or the first on the path, or what `make chromium` has fetched; the
headless shell alone is enough.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome", "chrome")
FETCHED = Path(__file__).parents[2] / "out" / "chromium" / "chromium"
"""Where `tests.support.fetch_chromium` puts one."""
SECONDS = 60.0
"""That an answer of the browser, or the loading of a page, may take; the first one waits for its start."""

FLAGS = (
    *("--headless", "--disable-gpu", "--no-first-run", "--disable-quic", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)


def find() -> str:
    """The browser's path.

    Raises:
      FileNotFoundError: there is none.
    """
    given = os.environ.get("CHROMIUM")
    for name in [given] if given else [*NAMES, str(FETCHED)]:
        path = shutil.which(name)
        if path is not None:
            return path
    where = f"CHROMIUM={given} is no program" if given else f"none of {', '.join(NAMES)} is on the path"
    remedy = "install chromium, or set CHROMIUM to its path, or have make chromium fetch one with npm"
    raise FileNotFoundError(f"no Chromium here: {where}; {remedy}")


@dataclass
class Tab:
    """What was heard of a page since it was opened."""

    browser: "Browser"
    session: str
    target: str
    complaints: list[str] = field(default_factory=list)
    """Exceptions, errors and warnings of the console, and of the log."""
    requests: list[str] = field(default_factory=list)
    """Addresses asked for."""
    blocked: list[str] = field(default_factory=list)
    """Those that the browser did not let out."""
    _asked: dict[str, str] = field(default_factory=dict)

    def send(self, method: str, **params: Any) -> Any:
        """One command of the DevTools protocol."""
        return self.browser.send(method, self.session, **params)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str, control: bool = False) -> None:
        """A key, by its name: "ArrowDown", "Tab", "Enter"; with Ctrl held, or not."""
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "Enter": 13}
        codes["Home"] = 36
        # A form is submitted by what Enter writes.
        text = {"text": "\r"} if key == "Enter" and not control else {}
        for kind, written in (("keyDown" if text else "rawKeyDown", text), ("keyUp", {})):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=codes[key],
                modifiers=2 * control,
                **written,
            )

    def write(self, text: str) -> None:
        """Type into whatever has the focus."""
        self.send("Input.insertText", text=text)

    def point(self, selector: str) -> None:
        """Move the mouse to the middle of the first such element."""
        x, y = self._middle(selector)
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, selector: str) -> None:
        """Click into the middle of the first such element with the mouse."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def tap(self, selector: str) -> None:
        """Tap the middle of the first such element with a finger."""
        x, y = self._middle(selector)
        self.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def drag(self, selector: str, share: float) -> None:
        """Press in the middle of a slider with the mouse, and let go at a share of its width."""
        x, y = self._middle(selector)
        left, width = self.evaluate(
            f"(() => {{ const b = document.querySelector({selector!r}).getBoundingClientRect();"
            "return [b.x, b.width]; })()"
        )
        places = [("mousePressed", x), ("mouseMoved", left + share * width), ("mouseReleased", None)]
        for kind, place in places:
            x = x if place is None else place
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def _middle(self, selector: str) -> tuple[float, float]:
        self.evaluate(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        x, y = self.evaluate(
            f"(() => {{ const b = document.querySelector({selector!r}).getClientRects()[0];"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        return x, y

    def screenshot(self, path: Path) -> None:
        """What is seen, as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def hear(self, event: dict[str, Any]) -> None:
        """Take an event in."""
        name, params = event["method"], event["params"]
        if name == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        if name == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))
        if name == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        if name == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
            self._asked[params["requestId"]] = params["request"]["url"]
        if name == "Network.loadingFailed" and params.get("blockedReason") == "csp":
            self.blocked.append(self._asked[params["requestId"]])


class Browser:
    """A browser process with a profile of its own, which ends with the `with`."""

    def __enter__(self) -> "Browser":
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._errors = tempfile.TemporaryFile()
        # Chromium reads commands from its descriptor 3 and answers on 4, each message ended by a zero byte.
        read_commands, self._commands = os.pipe()
        self._answers, write_answers = os.pipe()
        root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        arguments = [*FLAGS, *root, "--remote-debugging-pipe", f"--user-data-dir={self._profile.name}"]
        script = f'exec 3<&{read_commands} 4>&{write_answers}; exec "$0" "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", script, find(), *arguments],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._number, self._pending, self._tabs = 0, b"", dict[str, Tab]()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._commands)
        os.close(self._answers)
        self._errors.close()
        self._profile.cleanup()

    def open(self, address: str, width: int, height: int, scheme: str, still: bool = False) -> Tab:
        """A page, once it is loaded; one of less than 600 pixels across is touched with fingers.

        It takes the place of the page before, whose tab is closed.

        Args:
          address: file:// or on loopback.
          width: of the view, CSS pixels.
          height: likewise.
          scheme: "light" or "dark", as the page is told the user prefers.
          still: whether the user prefers reduced motion.
        """
        for tab in self._tabs.values():
            self.send("Target.closeTarget", targetId=tab.target)
        self._tabs.clear()
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self._tabs[session] = Tab(self, session, target)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.send(f"{domain}.enable")
        motion = "reduce" if still else "no-preference"
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        tab.send("Emulation.setEmulatedMedia", features=features)
        tab.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        tab.send("Emulation.setTouchEmulationEnabled", enabled=width < 600)
        tab.requests.clear()
        tab.send("Page.navigate", url=address)
        late = time.monotonic() + SECONDS
        while tab.evaluate("document.readyState") != "complete" or tab.evaluate("location.href") != address:
            assert time.monotonic() < late, f"{address} has not loaded"
            time.sleep(0.01)
        return tab

    def send(self, method: str, session: str | None = None, **params: Any) -> Any:
        """One command, and its result; events that come in between are given to their tabs."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        late = time.monotonic() + SECONDS
        while True:
            answer = self._receive(late)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            tab = self._tabs.get(answer.get("sessionId", ""))
            if tab is not None and "method" in answer:
                tab.hear(answer)

    def _receive(self, late: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            wait = max(late - time.monotonic(), 0)
            answers, _, _ = select.select([self._answers], [], [], wait)
            assert answers, f"{find()} has not answered for {SECONDS:.0f} s; it said: {self._said()}"
            more = os.read(self._answers, 1 << 16)
            assert more, f"{find()} has ended; it said: {self._said()}"
            self._pending += more
        message, _, self._pending = self._pending.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-2000:]
