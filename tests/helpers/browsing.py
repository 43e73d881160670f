"""A headless Chromium for tests: a page from the disk, its keys, its console and its widths."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
from pathlib import Path

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
HERE = bool(CHROMIUM and DRIVER and importlib.util.find_spec("selenium"))

needs_chromium = pytest.mark.skipif(
    not HERE, reason="needs chromium, chromedriver and selenium (make test-browser)"
)

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


class Page:
    """A page in the browser; arrays come back as lists."""

    def __init__(self):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in ARGUMENTS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(DRIVER))

    def open(self, path: Path, address: str = "", *, width: int = 1280, dark: bool = False):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.emulate(dark=dark)
        self.driver.get("about:blank")
        self.driver.get_log("browser"), self.driver.get_log("performance")
        self.driver.get(path.as_uri() + address)

    def emulate(self, *, dark: bool = False, media: str = ""):
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": media, "features": [scheme]}
        )

    def run(self, script: str, *arguments):
        return self.driver.execute_script(f"return {script}", *arguments)

    def text(self, name: str) -> str:
        return self.run("document.getElementById(arguments[0]).textContent", name)

    def find(self, css: str):
        return self.driver.find_element("css selector", css)

    def press(self, *keys: str, at: str = "body"):
        self.find(at).send_keys(*keys)

    def click_at(self, element, right: float, down: float):
        """Click at a distance from the middle of an element."""
        from selenium.webdriver import ActionChains

        actions = ActionChains(self.driver)
        actions.move_to_element_with_offset(element, int(right), int(down)).click().perform()

    def move(self, slider: str, value):
        """Move a slider or choose from a list, as a hand does."""
        self.run(
            "(() => { const [input, value] = arguments; input.value = value;"
            " for (const name of ['input', 'change'])"
            " input.dispatchEvent(new Event(name, { bubbles: true })); }).apply(null, arguments)",
            self.find(slider),
            value,
        )

    def complaints(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        messages = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def axe(self) -> list[str]:
        """Return what axe-core finds wrong: contrast, labels, roles, order."""
        root = Path(importlib.util.find_spec("axe_core_python").origin).parent
        self.driver.execute_script((root / "axe.min.js").read_text("utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then((r) => done(r), (e) => done(String(e)));"
        )
        assert found["passes"], found
        return [
            f"{rule['id']}: {[node['html'][:120] for node in rule['nodes']]}"
            for rule in found["violations"]
        ]

    def png(self) -> bytes:
        address = self.run("frameAsPicture().toDataURL('image/png')")
        return base64.b64decode(address.removeprefix("data:image/png;base64,"))

    def close(self):
        self.driver.quit()
