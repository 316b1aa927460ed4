"""A headless Chromium, driven by the W3C's WebDriver protocol: a few requests in JSON."""

import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
DRIVER = shutil.which("chromedriver")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name of an element's number


class Browser:
    def __init__(self, address: str, downloads: Path | None = None):
        self.address = address
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1200,1150"]
        options = {"binary": CHROMIUM, "args": flags, "prefs": {"download.default_directory": str(downloads or "")}}
        asked = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self.call("/session", {"capabilities": {"alwaysMatch": asked}})
        self.address += f"/session/{made['sessionId']}"

    def call(self, path, body=None, method="POST"):
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, url):
        self.call("/url", {"url": url})

    def run(self, script, *arguments):
        return self.call("/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, script, *arguments, seconds=40):
        """What the script returns once that is true."""
        end = time.monotonic() + seconds
        while not (found := self.run(script, *arguments)):
            assert time.monotonic() < end, f"{script}\n{self.run('return document.body.innerText')}"
            time.sleep(0.1)
        return found

    def give(self, selector, path):
        """A file to an <input type=file>."""
        found = self.call("/element", {"using": "css selector", "value": selector})
        self.call(f"/element/{found[_ELEMENT]}/value", {"text": str(path)})

    def click(self, text):
        """On the link that says `text`, as a person does: of clicks by script a browser keeps but the first file."""
        found = self.call("/element", {"using": "link text", "value": text})
        self.call(f"/element/{found[_ELEMENT]}/click")

    def messages(self):
        """What the console says of errors."""
        return [line["message"] for line in self.call("/se/log", {"type": "browser"}) if line["level"] == "SEVERE"]

    def screenshot(self):
        return base64.b64decode(self.call("/screenshot", method="GET"))


@contextlib.contextmanager
def browser(downloads: Path | None = None):
    """downloads: the folder that files are saved in."""
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        port = next(found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
        made = Browser(f"http://127.0.0.1:{port}", downloads)
        try:
            yield made
        finally:
            made.call("", method="DELETE")
    finally:
        driver.terminate()
        driver.wait()
