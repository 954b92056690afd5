"""A headless Chromium, driven over its DevTools protocol; what it complains about is kept."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pandas as pd
import pytest
import websocket

NAMES = ("chromium", "google-chrome", "chromium-browser", "chrome")
SECONDS = 60
KINDS = ("html", "parquet", "json", "png")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--disable-dev-shm-usage", "--remote-allow-origins=*", "--remote-debugging-port=0",
)  # fmt: skip

PIXELS = """(async () => {{
    const picture = new Image();
    picture.src = {};
    await picture.decode();
    const {{width, height}} = picture;
    const context = new OffscreenCanvas(width, height).getContext('2d');
    context.drawImage(picture, 0, 0);
    const counts = new Map();
    for (const pixel of new Uint32Array(context.getImageData(0, 0, width, height).data.buffer))
        counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
    const inked = [...counts].filter(([pixel]) => {{
        const channels = [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
        return Math.max(...channels) - Math.min(...channels) > 60;
    }}).reduce((sum, [, count]) => sum + count, 0);
    const share = count => count / (width * height);
    const commonest = share(Math.max(...counts.values()));
    return {{width, height, colours: counts.size, commonest, inked: share(inked)}};
}})()"""


class Tab:
    """One tab: pages opened, scripts run, keys and clicks sent."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, timeout=SECONDS)
        self.number, self.complaints, self.requests, self.loaded = 0, [], [], False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """A command's result; events that come before it are noted."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def _note(self, message):
        kind, what = message.get("method", ""), message.get("params", {})
        if kind == "Runtime.exceptionThrown":
            details = what["exceptionDetails"]
            self.complaints.append(details.get("exception", details))
        elif kind == "Runtime.consoleAPICalled" and what["type"] in ("error", "assert", "warning"):
            self.complaints.append([one.get("value") for one in what["args"]])
        elif kind == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.complaints.append(what["entry"])
        elif kind == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
        elif kind == "Page.loadEventFired":
            self.loaded = True

    def open(self, path):
        """Load a file's page, until it is drawn."""
        self.loaded = False
        self.send("Page.navigate", url=Path(path).resolve().as_uri())
        while not self.loaded:
            self._note(json.loads(self.socket.recv()))
        self.run("new Promise(done => requestAnimationFrame(() => setTimeout(done, 0)))")

    def run(self, script):
        """A script's value; its exception fails the test."""
        found = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector):
        """The text of the first element that a selector finds."""
        return self.run(f"document.querySelector({json.dumps(selector)}).textContent")

    def texts(self, selector):
        """The texts of all."""
        return self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(e => e.textContent)"
        )

    def click(self, selector):
        """A real click at the middle of an element."""
        x, y = self.run(
            f"(() => {{const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'}); const r = e.getBoundingClientRect();"
            "return [r.left + r.width / 2, r.top + r.height / 2]})()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, name):
        """A key, pressed and let go."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=name, code=name)

    def slide(self, selector, value):
        """Move a slider, as a reader does."""
        self.run(
            f"(() => {{const e = document.querySelector({json.dumps(selector)});"
            f"e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input', "
            "{bubbles: true})); e.dispatchEvent(new Event('change', {bubbles: true}));})()"
        )

    def look(self, width, *, dark=False, height=900, media=""):
        """How wide the page is, and in which colours and medium."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def picture(self, path):
        """The whole page as PNG; returns what is written."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        content = base64.b64decode(found["data"])
        Path(path).write_bytes(content)
        return content

    def require_drawn(self, picture, *, width=None):
        """Fail unless a PNG, as the browser decodes it, is a picture: not blank nor all grey.

        Args:
            picture: its bytes.
            width: what it must be wide, in pixels; None where that is not known.
        """
        address = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        found = self.run(PIXELS.format(json.dumps(address)))
        assert width in (None, found["width"]), found
        assert found["colours"] >= 10, found
        assert found["commonest"] < 0.99, found
        assert found["inked"] > 0.0003, found  # text and axes are grey, what is shown is not

    def require_quiet(self, *paths):
        """Fail on any complaint, and on any request but for the given files."""
        allowed = {Path(path).resolve().as_uri() for path in paths} | {"data:,"}
        assert not self.complaints, self.complaints
        assert [url for url in self.requests if url not in allowed] == []


def browser_path():
    """The browser, or None."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


@contextmanager
def opened_browser():
    """A tab of a browser of its own; skips where there is none."""
    path = browser_path()
    if path is None:
        pytest.skip("neither Chrome nor Chromium is installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ},
        )  # fmt: skip
        try:
            tab = Tab(_address(Path(profile) / "DevToolsActivePort", process))
            with closing(tab.socket):
                yield tab
        finally:
            process.kill()
            process.wait()


def _address(file, process):
    """The first tab's address, once the browser has written its port."""
    import urllib.request

    for _ in range(SECONDS * 10):
        assert process.poll() is None, "the browser ended"
        if file.exists() and len(lines := file.read_text().split("\n")) >= 2:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list") as answer:
                tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
            if tabs:
                return tabs[0]["webSocketDebuggerUrl"]
        time.sleep(0.1)
    raise AssertionError("the browser opened no tab")


def require_written(files):
    """Fail unless pages are whole, tables have rows, records say something and pictures show it."""
    content = {path: path.read_bytes() for path in files}
    of = {kind: [path for path in files if path.suffix == f".{kind}"] for kind in KINDS}
    assert set(files) == {path for own in of.values() for path in own}
    for path in of["html"]:
        assert content[path].rstrip().endswith(b"</html>"), path
        assert b"Plotly.newPlot(" in content[path] or b"<main" in content[path], path
    for path in of["parquet"]:
        assert len(pd.read_parquet(path)), path
    for path in of["json"]:
        assert json.loads(content[path]), path
    if of["png"]:
        with opened_browser() as tab:
            for path in of["png"]:
                tab.require_drawn(content[path])
