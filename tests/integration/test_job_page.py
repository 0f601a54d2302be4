"""The page of a job in a real browser: what it shows while the job goes on, and its button."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys
from twisted.internet.threads import deferToThread

from deferpost.errors import HTTPError
from tests.required import required
from tests.web import answer_of
from tests.web.jobs.test_sockets import Daemon, daemon

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("job page")]

SOON = 20.0
HOSTILE = "\"'><img/src=x/onerror=document.title='owned'><script>alert(1)</script>&amp;"


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
        f"--user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = Chrome(options=options, service=Service(driver))
    try:
        yield started
    finally:
        started.quit()


class Browser:
    """The browser, which is asked in another thread: the site runs in this one."""

    def __init__(self, chrome: Chrome, served: Daemon) -> None:
        self._chrome = chrome
        self._served = served

    async def visit(self, id: str) -> None:
        """Open the page of a job."""
        url = f"http://127.0.0.1:{self._served.port.getHost().port}/jobs/{id}"
        await deferToThread(self._chrome.get, url)

    async def emulate(self, width: int, *, dark: bool) -> None:
        """Be a device."""
        command = self._chrome.execute_cdp_cmd
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        await deferToThread(command, "Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await deferToThread(command, "Emulation.setEmulatedMedia", {"features": [scheme]})

    async def run(self, script: str) -> Any:
        """Run a script in the page."""
        return await deferToThread(self._chrome.execute_script, script)

    async def wait(self, *texts: str) -> str:
        """Wait until texts are on the page, as somebody sees it."""

        def waiting() -> str:
            deadline = time.monotonic() + SOON
            while True:
                text: str = self._chrome.execute_script("return document.body.innerText")
                if all(each in text for each in texts):
                    return text
                assert time.monotonic() < deadline, f"{texts} in {text!r}"
                time.sleep(0.05)

        return await deferToThread(waiting)

    async def press(self, *keys: str) -> None:
        """Press keys, with the focus where it is."""

        def pressing() -> None:
            self._chrome.switch_to.active_element.send_keys(*keys)

        await deferToThread(pressing)

    async def complaints(self) -> list[str]:
        """What the browser has complained of in its console."""
        log: Callable[[str], list[dict[str, str]]] = self._chrome.get_log
        return [entry["message"] for entry in await deferToThread(log, "browser")]


async def until_true(browser: Browser, script: str) -> None:
    """Wait until a script in the page says so."""
    deadline = time.monotonic() + SOON
    while not await browser.run(script):
        assert time.monotonic() < deadline, script


@asynccontextmanager
async def browsing(chrome: Chrome, directory: Path) -> AsyncIterator[tuple[Daemon, Browser]]:
    """A daemon, and a browser that looks at it; its complaints are errors."""
    async with daemon(directory) as served:
        browser = Browser(chrome, served)
        await browser.emulate(1280, dark=False)
        yield served, browser
        await deferToThread(chrome.get, "about:blank")
        assert await browser.complaints() == []


@ensureDeferred
async def test_a_job_goes_on(chrome: Chrome, tmp_path: Path) -> None:
    """Somebody sees the job run, how far it is, and in the end its result, without reloading."""
    async with browsing(chrome, tmp_path) as (served, browser):
        record = await served.job()
        await browser.visit(record.id)
        await browser.wait("▶ running", "/rst", "Live", "Cancel the job")
        served.pool.jobs[-1].report(1, 4, HOSTILE)
        await browser.wait("1 of 4", HOSTILE)
        served.pool.give(
            answer_of(HOSTILE.encode(), headers=((b"Content-Type", b"text/plain; charset=utf-8"),))
        )
        text = await browser.wait("✓ succeeded", "Ended", "Open the result", "status 200")
        assert "Cancel the job" not in text
        await browser.wait(f"{len(HOSTILE)} bytes")
        shown = "return !document.getElementById('preview').hidden"
        await until_true(browser, shown)
        assert await browser.run("return document.getElementById('preview').innerText") == HOSTILE
        assert "succeeded" in await browser.run("return document.title")
        link = await browser.run("return document.getElementById('result').href")
        assert link.endswith(f"/jobs/{record.id}/result")


@ensureDeferred
async def test_a_job_fails(chrome: Chrome, tmp_path: Path) -> None:
    """Somebody sees why there is no result."""
    async with browsing(chrome, tmp_path) as (served, browser):
        record = await served.job()
        served.pool.fail(HTTPError(422, HOSTILE, extensions={"line": 3}))
        await browser.visit(record.id)
        await browser.wait("✕ failed", HOSTILE, '"line": 3')


@ensureDeferred
async def test_cancel(chrome: Chrome, tmp_path: Path) -> None:
    """With the keyboard alone the job is canceled, and the page says when it has ended."""
    async with browsing(chrome, tmp_path) as (served, browser):
        record = await served.job()
        await browser.visit(record.id)
        await browser.wait("▶ running")
        await browser.press(Keys.TAB)
        assert await browser.run("return document.activeElement.id") == "cancel"
        await browser.press(Keys.ENTER)
        await browser.wait("Cancel this job?")
        await browser.press(Keys.TAB)
        await browser.press(Keys.ENTER)
        await browser.wait("◌ canceling", "requested")
        await served.end(record.id)
        await browser.wait("⊘ canceled")


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("dark", [False, True])
@ensureDeferred
async def test_devices(chrome: Chrome, tmp_path: Path, width: int, dark: bool) -> None:
    """Nothing is wider than the screen, whatever is in it, and dark is dark."""
    async with browsing(chrome, tmp_path) as (served, browser):
        await browser.emulate(width, dark=dark)
        record = await served.job()
        served.pool.jobs[-1].report(1, None, "m" * 900)
        served.pool.fail(HTTPError(400, "d" * 900))
        await browser.visit(record.id)
        await browser.wait("✕ failed", "d" * 900)
        wide = await browser.run("return document.documentElement.scrollWidth")
        assert wide <= width
        ground = await browser.run("return getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(18, 22, 27)" if dark else "rgb(244, 246, 248)")
        assert json.loads(await browser.run("return JSON.stringify(job)"))["id"] == record.id
