"""A headless Chromium with the page in it. GOV_SHOTS names a folder for screenshots."""
import json
import os
import pathlib
import shutil
import time

import pytest
from mock_server import ROOT, MockServer
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys


class Page:
    """The page as a person has it; waits for what it looks for."""

    def __init__(self, driver, url):
        self.driver, self.url = driver, url

    def open(self, fragment=""):
        self.driver.get("about:blank")
        self.driver.get(self.url + fragment)
        self.until(lambda: self.js("return document.querySelector('#prompt') !== null"))
        return self

    def until(self, condition, seconds=15, what=""):
        end = time.time() + seconds
        while time.time() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.02)
        raise AssertionError(f"never came true: {what or 'condition'}; the page says: {self.text('body')[-600:]}")

    def js(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def cdp(self, command, **parameters):
        return self.driver.execute_cdp_cmd(command, parameters)

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def one(self, css):
        self.until(lambda: self.all(css), what=css)
        return self.all(css)[0]

    def text(self, css):
        return self.js("return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def click(self, css):
        self.one(css).click()

    def button(self, label, inside="", at=-1):
        """Presses the button that a screen reader calls `label`; the last one unless told."""
        self.until(lambda: self.all(f'{inside} button[aria-label="{label}"]'), what=f"button {label}")
        self.js("arguments[0].click()", self.all(f'{inside} button[aria-label="{label}"]')[at])

    def press(self, *keys):
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def send(self, text):
        self.one("#prompt").send_keys(text, Keys.ENTER)

    def ask(self, text):
        """Sends and waits for the end of the answer, which it returns."""
        count = len(self.all(".assistant"))
        self.send(text)
        self.until(lambda: len(self.all(".assistant")) > count, what="an answer")
        self.idle()
        return self.js("return [...document.querySelectorAll('.assistant > .text')].at(-1).innerText")

    def idle(self):
        self.until(lambda: not self.all('.assistant[aria-busy="true"]') and self.all('.send[aria-label="Send"]'), what="the end of the answer")

    def answers(self):
        return self.js("return [...document.querySelectorAll('.assistant > .text')].map((e) => e.innerText)")

    def focus(self):
        return self.js("const e = document.activeElement; return e.getAttribute('aria-label') || e.innerText || e.id || e.tagName")

    def shot(self, name):
        folder = os.environ.get("GOV_SHOTS")
        if folder:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(f"{folder}/{name}.png")

    def size(self, width, height, mobile=False):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def scheme(self, name):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])


def previews(page, count):
    page.until(lambda: len(page.all(".composer .previews img")) == count, what=f"{count} previews")


def fill(page, **fields):
    page.click("#settings")
    page.one("dialog .field")
    page.js("document.querySelector('dialog details').open = true")
    for name, value in fields.items():
        page.js("const e = document.querySelector(`dialog [name=${arguments[0]}]`); e.value = arguments[1]; e.dispatchEvent(new Event('input'))", name, value)
    page.js("document.querySelector('dialog .primary').click()")


@pytest.fixture(scope="session")
def driver():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--no-first-run"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    chrome = shutil.which("chromedriver")
    assert chrome, "chromedriver is not installed (Debian package chromium-driver)"
    driver = webdriver.Chrome(options=options, service=Service(chrome))
    # Breaches of the content policy, as the page itself is told of them.
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {
        "source": "window.breaches = []; addEventListener('securitypolicyviolation', (e) => breaches.push(`${e.violatedDirective} ${e.blockedURI}`));"
                  "window.failures = []; addEventListener('error', (e) => failures.push(e.message)); addEventListener('unhandledrejection', (e) => failures.push(String(e.reason)));"})
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def server():
    return MockServer().start()


def requested(driver):
    """The addresses asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]


def fresh(driver, url):
    driver.get("about:blank")
    driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": url.rstrip("/"), "storageTypes": "all"})
    requested(driver)
    page = Page(driver, url)
    page.size(1280, 900)
    page.scheme("light")
    return page


@pytest.fixture
def page(driver, server):
    """The page of the mock server, new and empty. Afterwards: no breach, no outside request, no uncaught error."""
    server.reset()
    server.key = ""
    page = fresh(driver, server.url)
    page.open()
    page.js("sessionStorage.clear()")
    yield page
    breaches, failures = page.js("return [window.breaches || [], window.failures || []]")
    assert breaches == [] and server.violations == [], "breaches of the content security policy"
    assert failures == [], "uncaught errors in the page"
    outside = [url for url in requested(driver) if not url.startswith((server.url, "data:", "blob:", "about:"))]
    assert outside == [], "requests to other hosts"
