"""The page of a survey in headless Chromium, driven over the WebDriver protocol; skipped where there is none.

Source: W3C, WebDriver, 2018.
"""

import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request

from models.dreaming.atlas import Page

import pytest
from conftest import smooth_image

CHROMIUM = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
CHROMIUM += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"]
KEYS = {"left": "\ue012", "up": "\ue013", "right": "\ue014", "down": "\ue015", "escape": "\ue00c", "enter": "\ue007"}
CELLS = 500
IN_SIGHT = """
const found = document.querySelector(arguments[0]), done = arguments[1];
found.scrollIntoView({block: "center"});
const before = found.getBoundingClientRect().y;
requestAnimationFrame(() => setTimeout(() => {
  const now = found.getBoundingClientRect();
  const top = document.elementFromPoint(now.x + now.width / 2, now.y + now.height / 2);
  done(now.y === before && found.contains(top));
}, 50));
"""

pytestmark = pytest.mark.skipif(
    not (shutil.which("chromedriver") and (shutil.which("chromium") or shutil.which("google-chrome"))),
    reason="there is no chromedriver (Debian's package chromium-driver)",
)


class Browser:
    """A session of WebDriver at `url`."""

    def __init__(self, url):
        self.url = url
        options = {"args": CHROMIUM}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self.url += "/session/" + self.post("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def post(self, path, values, method="POST"):
        request = urllib.request.Request(
            self.url + path, json.dumps(values).encode(), {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, path, width=1400, height=900):
        self.post("/window/rect", {"width": width, "height": height})
        self.post("/url", {"url": path.as_uri()})

    def js(self, script):
        """Return what an expression is worth on the page."""
        return self.post("/execute/sync", {"script": f"return {script};", "args": []})

    def until(self, script):
        """Wait until an expression is true: a dialog tells of its closing a little later."""
        late = time.monotonic() + 30
        while not self.js(script):
            assert time.monotonic() < late, script
            time.sleep(0.02)

    def press(self, *keys):
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self.post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def click(self, selector):
        """Click on what is seen, once the page has stopped moving: cells get their height when they are first shown."""
        late = time.monotonic() + 30
        while not self.post("/execute/async", {"script": IN_SIGHT, "args": [selector]}):
            assert time.monotonic() < late, f"{selector} stays covered, or moves"
        (element,) = self.post("/element", {"using": "css selector", "value": selector}).values()
        self.post(f"/element/{element}/click", {})

    def copied(self):
        permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
        self.post("/goog/cdp/execute", {"cmd": "Browser.grantPermissions", "params": permissions})
        script = "const done = arguments[0]; navigator.clipboard.readText().then(done, (error) => done(String(error)));"
        return self.post("/execute/async", {"script": script, "args": []})

    def complaints(self):
        return [entry["message"] for entry in self.post("/se/log", {"type": "browser"})]


@pytest.fixture(scope="module")
def browser():
    with subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        for line in driver.stdout:
            if port := re.search(r"started successfully on port (\d+)", line):
                break
        session = Browser(f"http://127.0.0.1:{port[1]}")
        yield session
        session.post("", {}, method="DELETE")
        driver.terminate()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    page = Page(tmp_path_factory.mktemp("atlas") / "page.html", "a <b>title</b>", "key")
    for number in range(CELLS):
        page.add(
            f"inception4c:{number}", f"python dream.py 'a b.jpg' --layers inception4c:{number}", smooth_image(24, 40)
        )
    page.finished = True
    return page.write()[0]


def test_cells_and_filter(browser, page):
    start = time.monotonic()
    browser.open(page)
    assert browser.js("document.querySelectorAll('figure').length") == CELLS and time.monotonic() - start < 20
    assert browser.js("document.querySelector('h1').textContent") == "a <b>title</b>"
    assert browser.js("document.querySelector('#count').textContent") == "500 dreams"
    assert browser.js("document.querySelector('figure img').naturalWidth") == 40
    browser.press("/")
    browser.press(*"4C:49 :49")
    assert browser.js("document.querySelector('#count').textContent") == "11 of 500 dreams"
    assert browser.js("[...document.querySelectorAll('figure')].filter(f => f.checkVisibility()).length") == 11
    browser.press(*"nothing")
    assert browser.js("document.querySelector('#none').checkVisibility()")
    assert browser.complaints() == []


def test_a_dream_is_enlarged_turned_and_its_command_copied(browser, page):
    browser.open(page)
    browser.click("figure:nth-of-type(3) .open")
    name = "document.querySelector('dialog[open] h2').textContent"
    assert browser.js(name) == "inception4c:2"
    assert browser.js("document.querySelector('dialog img').clientWidth") > 600
    browser.press("right")
    assert browser.js(name) == "inception4c:3"
    browser.press("left", "left", "left", "left")
    assert browser.js(name) == "inception4c:499"
    browser.click(".copy-large")
    assert browser.copied() == "python dream.py 'a b.jpg' --layers inception4c:499"
    browser.press("escape")
    browser.until("document.activeElement.closest('figure')?.dataset.name === 'inception4c:499'")
    assert not browser.js("document.querySelector('dialog').open")
    browser.click("figure:nth-of-type(5) .copy")
    assert browser.copied() == "python dream.py 'a b.jpg' --layers inception4c:4"
    assert browser.complaints() == []


def test_arrow_keys_walk_over_the_grid(browser, page):
    browser.open(page)
    at = "[...document.querySelectorAll('figure')].indexOf(document.activeElement.closest('figure'))"
    browser.press("right")
    assert browser.js(at) == 0
    browser.press("right", "down")
    row = browser.js(at) - 1
    assert 3 <= row <= 12
    browser.press("left", "up")
    assert browser.js(at) == 0
    browser.press("enter")
    assert browser.js("document.querySelector('dialog').open")
    browser.press("escape")
    browser.until(f"{at} === 0")
    assert browser.complaints() == []


def test_on_a_phone_nothing_hangs_over(browser, page):
    browser.open(page, 390, 800)
    browser.post(
        "/goog/cdp/execute",
        {
            "cmd": "Emulation.setDeviceMetricsOverride",
            "params": {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True},
        },
    )
    assert browser.js("innerWidth") == 390 and browser.js("document.documentElement.scrollWidth") == 390
    browser.click("figure .open")
    assert browser.js("document.querySelector('dialog').getBoundingClientRect().right") <= 390
