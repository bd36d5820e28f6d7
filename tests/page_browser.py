"""A real browser: Debian's Chromium, driven through its own driver."""

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys


class Browser:
    """One tab; what it asked the network for and what it complained of is kept."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str, *, width: int = 1440, dark: bool = False) -> None:
        self._size(width, 900)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get(url)

    def _size(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(*(getattr(Keys, key) for key in keys)).perform()

    def focused(self) -> str:
        """The element that has the focus, by id, else by what it says."""
        return self.run("const it = document.activeElement; return it.id || it.value || it.textContent;")

    def wait_for(self, what: Callable[[], Any], timeout_s: float = 120) -> Any:
        until = time.monotonic() + timeout_s
        while not (found := what()):
            page = self.driver.find_element(By.TAG_NAME, "body").text
            assert time.monotonic() < until, f"timed out; {self.complaints()}; the page says\n{page[:3000]}"
            time.sleep(0.2)
        return found

    def table(self) -> list[list[str]]:
        """The windows as the page's table has them, newest first."""
        self.run("document.getElementById('table').open = true;")
        rows = "[...document.querySelectorAll('#table tbody tr')]"
        cells = f"return {rows}.map((row) => [...row.cells].map((cell) => cell.textContent));"
        return self.wait_for(lambda: self.run(cells))

    def picture(self, path: Path) -> bytes:
        """The whole page as a PNG, which is also written to `path`."""
        width, height = self.run("return [innerWidth, document.documentElement.scrollHeight];")
        self._size(width, height)
        png = base64.b64decode(
            self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"]
        )
        self._size(width, 900)
        path.write_bytes(png)
        return png

    def complaints(self) -> list[str]:
        """What came to the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def hosts(self) -> set[str]:
        """The hosts that were asked for anything since the last call.

        Not among them: what a page carries itself (data:) and the browser's own tab (chrome:).
        """
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urlsplit(message["params"]["request"]["url"])
                found |= {url.netloc} if url.scheme not in {"data", "blob", "chrome"} else set()
        return found


@contextmanager
def browsing(home: Path) -> Iterator[Browser]:
    """Without the programs the test is skipped, by name, and fails in continuous integration."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if None in found:
        missing = "chromium is not installed (Debian: chromium, chromium-driver)"
        pytest.fail(missing) if "CI" in os.environ else pytest.skip(missing)
    options = webdriver.ChromeOptions()
    options.binary_location = found[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={home}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(found[1]))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
