"""The status page of a real daemon in a real browser: what it shows, and what its buttons do.

One daemon and one browser serve all of these tests.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import pytest_twisted
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.integration.conftest import StartDaemon
from tests.integration.daemon import Connection, Daemon, Response, wait_until
from tests.required import required

pytestmark = [
    pytest.mark.integration,
    # Beside each other these would need a browser each.
    pytest.mark.xdist_group("status page"),
]

TOKEN = "token-of-the-operator"
SOON = 20.0

APP = """
import time
from deferpost import App, ProcessPool, ThreadPool

app = App(pools={"work": ProcessPool(size=2, max_waiting=1), "threads": ThreadPool(size=1)})

@app.post("/quick", pool="work")
def quick(call):
    return "done"

@app.post("/hang", pool="work", timeout="10m")
def hang(call):
    wait_for_nothing()

@app.post("/<img/src=x/onerror=alert(1)>", pool="work", timeout="10m")
def hostile(call):
    wait_for_nothing()

@app.post("/thread", pool="threads")
def wait_in_a_thread(call):
    while True:
        call.check()
        time.sleep(0.01)

def wait_for_nothing():
    while True:
        time.sleep(0.01)  # here it stands
"""

HOSTILE = "\"'><img/src=x/onerror=document.title='owned'><script>alert(1)</script>&amp;"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose status page all may look at."""
    directory = tmp_path_factory.mktemp("status")
    (directory / "tokens").write_text(f"boss {TOKEN}\n")
    (directory / "tokens").chmod(0o600)
    daemon = Daemon(directory, APP, ["--status-page=open", "--operator-tokens=tokens"])
    try:
        daemon.wait_listening()
        yield daemon
    finally:
        left = daemon.end()
    assert not left, daemon.log()


class Browser:
    """Chromium, looking at the page of a daemon."""

    def __init__(self, chrome: Chrome, daemon: Daemon) -> None:
        self.chrome = chrome
        self._daemon = daemon

    def visit(self) -> None:
        """Open the page as somebody who has no token."""
        self.chrome.get(f"http://localhost:{self._daemon.port}/_deferpost/")
        self.wait("Live")

    def sign_in(self) -> None:
        """Open the page, with the token for which the browser is asked there."""
        page = f"127.0.0.1:{self._daemon.port}/_deferpost/"
        # As if it were typed in.  Of an address that has it, a browser waits to be asked each time.
        self.chrome.get(f"http://boss:{TOKEN}@{page}sign-in")
        self.chrome.get(f"http://{page}")
        self.wait("Live")

    def wait(self, text: str) -> None:
        """Wait until a text is on the page, as somebody sees it."""
        wait_until(lambda: text in self.text(), SOON, lambda: f"{text!r} in {self.text()!r}")

    def wait_gone(self, text: str) -> None:
        """Wait until a text is not on the page any more."""
        wait_until(lambda: text not in self.text(), SOON, lambda: f"no {text!r} in {self.text()!r}")

    def text(self, selector: str = "body") -> str:
        """What can be read."""
        text: str = self.run("return document.querySelector(arguments[0]).innerText", selector)
        return text

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script in the page."""
        return self.chrome.execute_script(script, *arguments)

    def button(self, name: str) -> WebElement:
        """The button that a screen reader calls so; it is waited for."""

        found: WebElement = wait_until(
            lambda: self.run(BUTTON, name), SOON, lambda: f"a button {name!r} in {self.text()!r}"
        )
        return found

    def press(self, *keys: str) -> None:
        """Press keys, with the focus where it is."""
        self.chrome.switch_to.active_element.send_keys(*keys)

    def focused(self) -> str:
        """What has the focus, as a screen reader calls it."""
        return self.chrome.switch_to.active_element.accessible_name

    def emulate(self, width: int, *, dark: bool = False) -> None:
        """Be a device."""
        command = self.chrome.execute_cdp_cmd
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        command("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        command("Emulation.setEmulatedMedia", {"features": [scheme]})


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser without a window, with a profile of its own."""
    options = ChromeOptions()
    options.binary_location = required("chromium", "chromium")
    driver = required("chromedriver", "chromium-driver")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
        "--window-size=1280,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = Chrome(options=options, service=Service(driver))
    try:
        yield started
    finally:
        started.quit()


@pytest.fixture
def browser(chrome: Chrome, served: Daemon) -> Iterator[Browser]:
    """The browser; whatever it complains of in its console fails the test."""
    browser = Browser(chrome, served)
    browser.emulate(1280)
    yield browser
    chrome.get("about:blank")
    complaints = [entry["message"] for entry in chrome.get_log("browser")]
    # That a request was answered 401 or 404 is told there, too.
    assert [one for one in complaints if "Failed to load resource" not in one] == []


class Waiting:
    """A client who waits for the answer to a POST, in a thread."""

    def __init__(self, daemon: Daemon, path: str, id: str) -> None:
        self.answer: Response | None = None
        self._connection = daemon.connect(60.0)
        self._connection.post(quote(path, safe="/()="), b"", f"X-Request-ID: {id}")
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        with self._connection, contextlib.suppress(AssertionError, OSError):  # it was left
            self.answer = self._connection.response()

    def answered(self) -> Response:
        """The answer, when it has come."""
        self._thread.join(SOON)
        assert self.answer is not None
        return self.answer

    def leave(self) -> None:
        """Go away."""
        with contextlib.suppress(OSError):  # it has waited for a minute, and is gone
            self._connection.socket.shutdown(2)
        self._thread.join(SOON)


@contextlib.contextmanager
def waiting(daemon: Daemon, path: str, id: str) -> Iterator[Waiting]:
    """A client who waits, until the end of the block at most."""
    client = Waiting(daemon, path, id)
    try:
        yield client
    finally:
        if client.answer is None:
            client.leave()


def state(daemon: Daemon) -> dict[str, Any]:
    """The state, as JSON."""
    with daemon.connect() as connection:
        connection.request("GET", "/_deferpost/state")
        document: dict[str, Any] = json.loads(connection.response("GET").body)
        return document


def worker_of(daemon: Daemon, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
    """A worker of the pool of processes."""
    workers = state(daemon)["pools"][0]["workers"]
    return next((worker for worker in workers if fits(worker)), None)


def test_live(browser: Browser, served: Daemon) -> None:
    """Pools, a job that runs and one that is over come onto the page by themselves."""
    browser.visit()
    browser.run("window.isTheSame = true")
    assert {"work", "threads"} <= set(browser.text("#pools").split())
    with waiting(served, "/hang", "hangs-for-long"):
        browser.wait("hangs-for-long")
        browser.wait("busy")
    with served.connect() as connection:
        connection.post("/quick", b"", "X-Request-ID: quick-one")
        assert connection.response().status == 200
    browser.wait("quick-one")
    browser.wait("client disconnected")
    for id in ("quick-one", "hangs-for-long"):
        wait_until(lambda id=id: id in browser.run(LANES), SOON, f"{id} in the lanes")  # type: ignore[misc]
    assert browser.run("return window.isTheSame")
    assert browser.text("#link") == "Live"


def test_who_only_looks_has_no_buttons(browser: Browser, served: Daemon) -> None:
    """Without a token there is a way to sign in, nothing to press, and nothing to be had."""
    browser.visit()
    with waiting(served, "/hang", "not-yours"):
        browser.wait("not-yours")
        assert browser.run(BUTTONS) == ["Pause"]
        assert browser.chrome.find_element(By.LINK_TEXT, "Sign in").is_displayed()
        busy = worker_of(served, lambda worker: worker["job_id"] == "not-yours")
        assert busy is not None
        for method, path in (
            ("POST", "/_deferpost/cancel"),
            ("POST", "/_deferpost/restart"),
            ("GET", f"/_deferpost/stack?pool=work&job={busy['job']}"),
        ):
            with served.connect() as connection:
                connection.request(method, path, b"{}", "Content-Type: application/json")
                assert connection.response(method).status == 401


def test_stack(browser: Browser, served: Daemon) -> None:
    """The stack of a job that hangs shows the function and the line at which it stands."""
    browser.sign_in()
    with waiting(served, "/hang", "where-is-it"):
        browser.button("Stack of job where-is-it").click()
        browser.wait("As of ")
        text = browser.text("#stack-text")
        assert "in hang" in text
        assert "in wait_for_nothing" in text
        assert "time.sleep(0.01)  # here it stands" in text
        browser.button("Refresh").click()
        browser.wait("As of ")
    wait_until(
        lambda: not worker_of(served, lambda worker: worker["job_id"] == "where-is-it"),
        SOON,
        "the end of the job",
    )
    browser.button("Refresh").click()
    browser.wait_gone("As of ")
    assert "in wait_for_nothing" in browser.text("#stack-text")  # the last that there was
    browser.wait("That job does not run, or not any more.")
    browser.button("Close").click()


def test_cancel(browser: Browser, served: Daemon) -> None:
    """The button asks first; then the job ends, and its client is answered."""
    browser.sign_in()
    with waiting(served, "/hang", "to-be-canceled") as client:
        browser.button("Cancel job to-be-canceled").click()
        browser.button("Let it run").click()
        assert client.answer is None
        browser.button("Cancel job to-be-canceled").click()
        browser.button("Cancel the job").click()
        answer = client.answered()
    assert (answer.status, json.loads(answer.body)["reason"]) == (503, "requested")
    browser.wait("Job to-be-canceled was told to stop.")
    browser.wait("canceled, requested")
    assert served.log_lines("[to-be-canceled] /hang: the operator boss cancels it")
    assert TOKEN not in served.log()


def test_restart(browser: Browser, served: Daemon) -> None:
    """Another process takes the place of a worker."""
    browser.sign_in()
    idle = wait_until(
        lambda: worker_of(served, lambda worker: worker["stage"] == "idle"), SOON, "an idle worker"
    )
    assert idle is not None
    browser.button(f"Restart worker {idle['name']}").click()
    browser.button("Restart the worker").click()
    browser.wait_gone(f"pid\u00a0{idle['pid']}")
    wait_until(lambda: idle["pid"] not in served.worker_pids(), SOON, "the end of its process")
    wait_until(
        lambda: len([one for one in state(served)["pools"][0]["workers"] if one["pid"]]) == 2,
        SOON,
        "another worker",
    )


def test_keyboard(browser: Browser, served: Daemon) -> None:
    """All of it works without a mouse, and the focus never gets lost."""
    browser.sign_in()
    with waiting(served, "/thread", "by-keyboard") as client:
        browser.button("Stack of job by-keyboard")
        browser.chrome.find_element(By.TAG_NAME, "body").click()
        for _ in range(40):
            browser.press(Keys.TAB)
            if browser.focused() == "Stack of job by-keyboard":
                break
        else:
            pytest.fail(f"the button cannot be reached; the focus is on {browser.focused()!r}")
        assert browser.run("return getComputedStyle(document.activeElement).outlineWidth") == "3px"
        browser.press(Keys.ENTER)
        browser.wait("in wait_in_a_thread")
        browser.press(Keys.ESCAPE)
        assert browser.focused() == "Stack of job by-keyboard"
        browser.press(Keys.TAB)
        assert browser.focused() == "Cancel job by-keyboard"
        browser.press(Keys.SPACE)
        browser.wait("Cancel job by-keyboard?")
        assert browser.focused() == "Let it run"  # what does no harm
        browser.press(Keys.TAB)
        browser.press(Keys.ENTER)
        assert client.answered().status == 503
        browser.wait_gone("/thread\nby-keyboard\n")
        assert browser.run("return document.activeElement !== document.body")


def test_narrow_and_dark(browser: Browser, served: Daemon) -> None:
    """At any width nothing sticks out, and in the light and the dark the text can be read."""
    browser.sign_in()
    long = "x" * 128
    with waiting(served, "/hang", long):
        browser.wait(long)
        for width, dark in ((1280, False), (1060, False), (768, False), (320, False), (320, True)):
            browser.emulate(width, dark=dark)
            wait_until(
                lambda width=width: browser.run(WIDTHS) == [width, width],  # type: ignore[misc]
                SOON,
                f"no more than {width} wide",
            )
            assert browser.run(JOB_WIDTH) > 120
            assert browser.button(f"Stack of job {long}").is_displayed()
            assert browser.run(CONTRASTS) == []
        background = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert sum(map(int, background.strip("rgb()").split(","))) < 3 * 64


def test_text_of_clients_is_text(browser: Browser, served: Daemon) -> None:
    """An id and a path that are HTML are seen as they are, and nothing of them runs."""
    browser.sign_in()
    with waiting(served, "/<img/src=x/onerror=alert(1)>", HOSTILE):
        browser.wait(HOSTILE)
        browser.wait("/<img/src=x/onerror=alert(1)>")
        browser.button(f"Stack of job {HOSTILE}").click()
        browser.wait("in wait_for_nothing")
        browser.press(Keys.ESCAPE)
        browser.button(f"Cancel job {HOSTILE}").click()
        browser.button("Cancel the job").click()
    browser.wait("canceled, requested")
    assert browser.run("return document.querySelectorAll('img, body script ~ script').length") == 0
    assert browser.chrome.title == "deferpost"


def test_the_policy_holds(browser: Browser) -> None:
    """A script, a style and a request to elsewhere that got in all the same would not work."""
    browser.visit()
    broken = browser.run(INTRUDER)
    found, owned, display = broken
    assert {"connect-src", "style-src-elem", "trusted-types"} <= set(found)
    assert (owned, display) == (None, "block")
    # Which the console tells, as it should.
    assert browser.chrome.get_log("browser")


def test_without_the_stream(browser: Browser, served: Daemon) -> None:
    """Without the stream the page asks every two seconds, and it says when nobody answers."""
    command = browser.chrome.execute_cdp_cmd
    command("Network.enable", {})
    command("Network.setBlockedURLs", {"urls": ["*/_deferpost/events"]})
    try:
        browser.chrome.get(f"http://localhost:{served.port}/_deferpost/")
        browser.wait("Every 2 s")
        command("Network.setBlockedURLs", {"urls": ["*/_deferpost/*"]})
        browser.wait("Disconnected since ")
        command("Network.setBlockedURLs", {"urls": []})
        browser.wait("Live")
        browser.button("Pause").click()
        browser.wait("Paused")
        with waiting(served, "/thread", "while-it-is-paused"):
            wait_until(lambda: served_thread(served) == "while-it-is-paused", SOON, "the job")
            assert "while-it-is-paused" not in browser.text()
            browser.button("Pause").click()
            browser.wait("while-it-is-paused")
        browser.wait("Live")
    finally:
        command("Network.setBlockedURLs", {"urls": []})
        command("Network.disable", {})


@pytest_twisted.ensureDeferred
async def test_those_who_watch_hold_up_neither_a_reload_nor_the_end(daemon: StartDaemon) -> None:
    """Their responses end whole, so that a browser comes back to what is served by then."""
    watched = daemon(APP, ["--status-page=open"])
    with watched.connect() as before, watched.connect() as after:
        before.request("GET", "/_deferpost/events")
        assert before.head().status == 200
        assert before.chunk()
        watched.send_signal(signal.SIGHUP)
        assert last_of(before) == b""  # with which it is whole
        await watched.logged("the version before has ended")
        after.request("GET", "/_deferpost/events")
        assert after.head().status == 200
        assert b'"accepting":true' in (after.chunk() or b"")
        watched.send_signal(signal.SIGTERM)
        assert last_of(after) == b""
    assert await watched.wait(5.0) == 0


def last_of(connection: Connection) -> bytes | None:
    """Read a response to its end; None if it broke off."""
    while chunk := connection.chunk():
        pass
    return chunk


def served_thread(daemon: Daemon) -> str | None:
    """The id of the job of the one thread."""
    workers = state(daemon)["pools"][1]["workers"]
    return workers[0]["job_id"] if workers else None


#: The buttons that are seen, by what a screen reader calls them, and the one of a name.  All in
#: one step: a worker that is replaced takes its buttons with it.
_BUTTONS = "[...document.querySelectorAll('button')].filter((one) => one.checkVisibility())"
_NAME = "(one.ariaLabel ?? one.textContent)"
BUTTONS = f"return {_BUTTONS}.map((one) => {_NAME})"
BUTTON = f"return {_BUTTONS}.find((one) => {_NAME} === arguments[0]) ?? null"

#: What is said of the jobs in the lanes.
LANES = "return [...document.querySelectorAll('#lanes title')].map((one) => one.textContent).join()"

#: How wide the page is, and how much of that is seen at once.
WIDTHS = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"

#: What of the place for a worker's job can be seen.
JOB_WIDTH = """
const job = [...document.querySelectorAll("td.job")].find((one) => one.textContent);
return job.getBoundingClientRect().width;
"""

#: Tries what the policy of the page forbids; returns what was stopped, and what was not.
INTRUDER = """
const stopped = [];
document.addEventListener("securitypolicyviolation", (event) => {
  stopped.push(event.effectiveDirective);
});
const trying = (act) => { try { act(); } catch { stopped.push("trusted-types"); } };
const script = document.createElement("script");
const style = document.createElement("style");
trying(() => { script.textContent = "window.owned = true"; });
style.textContent = "body { display: none }";
document.head.append(script, style);
trying(() => { document.body.innerHTML = "<b>owned</b>"; });
fetch("http://127.0.0.1:1/").catch(() => {});
return new Promise((then) => setTimeout(() => {
  then([stopped, window.owned, getComputedStyle(document.body).display]);
}, 100));
"""

#: The texts of the page whose contrast is below 4.5 to 1 (WCAG 2.2, 1.4.3).
CONTRASTS = """
const channel = (value) => {
  const part = value / 255;
  return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
};
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
const ground = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const color = numbers(getComputedStyle(at).backgroundColor);
    if (color.length === 3 || color[3] === 1) return light(color);
  }
  return 1;
};
const poor = [];
for (const node of document.querySelectorAll("body *:not(script, style, noscript)")) {
  const texts = [...node.childNodes].filter((child) => child.nodeType === 3 && child.data.trim());
  if (texts.length === 0 || !node.checkVisibility()) continue;
  const style = getComputedStyle(node);
  const color = node.namespaceURI.endsWith("svg") ? style.fill : style.color;
  const [more, less] = [light(numbers(color)), ground(node)].sort((a, b) => b - a);
  const ratio = (more + 0.05) / (less + 0.05);
  if (ratio < 4.5) poor.push(`${node.tagName} ${node.textContent.slice(0, 30)}: ${ratio}`);
}
return poor;
"""
