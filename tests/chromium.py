"""A headless Chromium for tests, through its own protocol over two pipes: nothing to install."""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time

SECONDS = 60
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# The browser reads from descriptor 3 and writes to 4.
START = """
import os, sys
os.dup2(int(sys.argv[1]), 100), os.dup2(int(sys.argv[2]), 101)
os.dup2(100, 3), os.dup2(101, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
KEYS = {
    "Enter": {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Space": {"key": " ", "code": "Space", "windowsVirtualKeyCode": 32, "text": " "},
    "Tab": {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9},
    "Right": {"key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39},
    "Left": {"key": "ArrowLeft", "code": "ArrowLeft", "windowsVirtualKeyCode": 37},
}


def found():
    """The browser of the system; None if there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Chromium:
    """One browser with one page.

    Attributes:
        requests: Addresses that the page has asked for.
        errors: What its console has complained of.
    """

    def __init__(self, folder):
        self.requests, self.errors = [], []
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        browser = [found(), *FLAGS, f"--user-data-dir={folder}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(read_there), str(write_there), *browser],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._in, self._out, self._read, self._number = read_here, write_here, b"", 0
        self._session = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def close(self):
        """Ends it."""
        os.close(self._out)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def send(self, method, **parameters):
        """Calls a method of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + SECONDS
        while True:
            answer = self._receive(until)
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _receive(self, until):
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._in], [], [], max(0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            read = os.read(self._in, 1 << 16)
            assert read, "the browser has ended"
            self._read += read
        first, _, self._read = self._read.partition(b"\0")
        return json.loads(first)

    def _note(self, event):
        told = event.get("params", {})
        if event["method"] == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event["method"] == "Runtime.exceptionThrown":
            self.errors.append(told["exceptionDetails"]["exception"].get("description", ""))
        elif event["method"] == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"] + " " + told["entry"].get("url", ""))
        elif event["method"] == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.errors.append(str(told["args"]))

    def open(self, address):
        """Goes to an address; waits for the first paint, before which keys and clicks are lost."""
        self.send("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")
        self.wait("performance.getEntriesByName('first-contentful-paint').length > 0")
        self.settle()

    def settle(self):
        """Waits until what has changed is on the screen."""
        frame = "new Promise(requestAnimationFrame)"
        self.value(f"{frame}.then(() => {frame}).then(() => true)")

    def value(self, expression):
        """What an expression of JavaScript comes to, a promise's outcome included."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def wait(self, expression):
        """Waits until an expression is true; returns it."""
        until = time.monotonic() + SECONDS
        while not (found := self.value(expression)):
            assert time.monotonic() < until, f"never true: {expression}"
            time.sleep(0.05)
        return found

    def press(self, *names):
        """Presses keys, one after the other."""
        for name in names:
            kind = "keyDown" if "text" in KEYS[name] else "rawKeyDown"
            self.send("Input.dispatchKeyEvent", type=kind, **KEYS[name])
            self.send("Input.dispatchKeyEvent", type="keyUp", **KEYS[name])

    def click(self, selector):
        """Clicks with the mouse on the middle of an element."""
        self.settle()
        x, y = self.value(
            f"(() => {{ const e = document.querySelector({selector!r}); "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); "
            "const r = e.getBoundingClientRect(); "
            "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def look(self, width, height, scheme="light", scale=1, phone=False):
        """Sets the size of the page and the scheme of colours."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=phone,
        )
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.settle()

    def picture(self):
        """The visible part as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])
