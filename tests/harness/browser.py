"""A Chromium without a window, driven over its DevTools protocol."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.harness.waiting import DEADLINE_S, wait_until

from .dataflow import clean_environment

KEYS = {"Enter": "\r", " ": " "}


def program() -> str | None:
    """Return the browser, None where there is none."""
    return shutil.which("chromium")


class Page:
    """A tab. `errors` has what went wrong in it, `requests` every address that it asked for."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session
        self.errors: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **params: Any) -> Any:
        """Call a method of the protocol."""
        return self._browser.call(method, self._session, **params)

    def goto(self, address: str) -> None:
        """Open an address, as if in a new tab."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """Return the value of an expression."""
        done = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script: str, deadline: float = DEADLINE_S) -> Any:
        """Wait until an expression is true, and return it."""

        def look() -> Any:
            with contextlib.suppress(AssertionError):  # the page is still loading
                return self.run(script)
            return None

        return wait_until(
            look,
            why=lambda: f"{script}\n{self.errors}\n{self.run('document.body.innerText')[:500]}",
            deadline_s=deadline,
        )

    def text(self, selector: str) -> str:
        """Return the text of an element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def key(self, key: str) -> None:
        """Press a key."""
        text = KEYS.get(key, key if len(key) == 1 else "")
        common = {"key": key, **({"text": text} if text else {})}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def click(self, selector: str) -> None:
        """Click the middle of an element."""
        x, y = self.run(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)})"
            ".getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            button = "none" if kind == "mouseMoved" else "left"
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=1)

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Choose the size of the window, and the look."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        look = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[look])

    def close(self) -> None:
        """Close the tab."""
        self._browser.call("Target.closeTarget", targetId=self._target)

    def handle(self, event: dict[str, Any]) -> None:
        """Note an event of the tab."""
        params = event["params"]
        match event["method"]:
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Network.webSocketCreated":
                self.requests.append(params["url"])


class Browser:
    """A running browser; see `browser`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self._pages: dict[str, Page] = {}

    def page(self) -> Page:
        """Open a tab."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def call(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Call a method of the protocol, and handle the events that come meanwhile."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(timeout=DEADLINE_S))
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            page = self._pages.get(answer.get("sessionId", ""))
            if page is not None and "method" in answer:
                page.handle(answer)


@contextmanager
def browser() -> Iterator[Browser]:
    """Start a browser with an empty profile, and end it."""
    found = program()
    assert found is not None
    with tempfile.TemporaryDirectory(prefix="browser-") as folder:
        words = [found, "--headless=new", "--disable-gpu", "--no-first-run", "--disable-extensions"]
        words += ["--disable-background-networking", "--disable-component-update", "--mute-audio"]
        words += [f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"]
        if os.getuid() == 0:
            words.insert(1, "--no-sandbox")
        env = clean_environment(Path("/usr/bin"), {"HOME": folder})
        with subprocess.Popen(
            words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                address = Path(folder) / "DevToolsActivePort"

                def told() -> list[str]:
                    assert process.poll() is None, "the browser has ended"
                    return address.read_text().splitlines() if address.exists() else []

                port, path = wait_until(
                    told, lambda lines: len(lines) == 2, why="the browser does not answer"
                )
                with connect(f"ws://127.0.0.1:{port}{path}", max_size=None) as connection:
                    yield Browser(connection)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
