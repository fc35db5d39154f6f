"""Headless Chromium, spoken to over a pipe: enough to open a page, look at it and press its keys."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

FLAGS = (
    *("--headless", "--disable-gpu", "--no-first-run", "--disable-quic", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)


def find() -> str:
    """The browser's path.

    Raises:
      FileNotFoundError: there is none.
    """
    for name in NAMES:
        path = shutil.which(name)
        if path is not None:
            return path
    raise FileNotFoundError(f"no Chromium here: none of {', '.join(NAMES)} is on the path; install chromium")


@dataclass
class Tab:
    """What was heard of a page since it was opened."""

    browser: "Browser"
    session: str
    complaints: list[str] = field(default_factory=list)
    """Exceptions, errors and warnings of the console, and of the log."""
    requests: list[str] = field(default_factory=list)
    """Addresses asked for."""

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
        for kind in ("rawKeyDown", "keyUp"):
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                windowsVirtualKeyCode=codes[key],
                modifiers=2 * control,
            )

    def write(self, text: str) -> None:
        """Type into whatever has the focus."""
        self.send("Input.insertText", text=text)

    def point(self, selector: str) -> None:
        """Move the mouse to the middle of the first such element."""
        self.evaluate(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        x, y = self.evaluate(
            f"(() => {{ const b = document.querySelector({selector!r}).getClientRects()[0];"
            "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

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


class Browser:
    """A browser process with a profile of its own, which ends with the `with`."""

    def __enter__(self) -> "Browser":
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
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
            stderr=subprocess.DEVNULL,
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
        self._profile.cleanup()

    def open(self, address: str, width: int, height: int, scheme: str) -> Tab:
        """A page, once it is loaded.

        Args:
          address: file:// or on loopback.
          width: of the view, CSS pixels.
          height: likewise.
          scheme: "light" or "dark", as the page is told the user prefers.
        """
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        tab = self._tabs[session] = Tab(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.send(f"{domain}.enable")
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.send("Emulation.setEmulatedMedia", features=features)
        tab.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        tab.requests.clear()
        tab.send("Page.navigate", url=address)
        while tab.evaluate("document.readyState") != "complete" or tab.evaluate("location.href") != address:
            pass
        return tab

    def send(self, method: str, session: str | None = None, **params: Any) -> Any:
        """One command, and its result; events that come in between are given to their tabs."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            tab = self._tabs.get(answer.get("sessionId", ""))
            if tab is not None and "method" in answer:
                tab.hear(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            more = os.read(self._answers, 1 << 16)
            assert more, "the browser has ended"
            self._pending += more
        message, _, self._pending = self._pending.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found
