"""The demo in a real browser: type, wait, read the answer; offline, at the width of a desktop and of a phone.

Needs Chromium and its driver: `apt-get install chromium chromium-driver`. The driver talks to 127.0.0.1 alone.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from selenium import webdriver
from selenium.webdriver.common.by import By
from test_demo import RATE, kind_of, text_model

from hf_rnn_seq2seq.sharing import demo
from hf_rnn_seq2seq.sharing.demo_models import ClassModel, ForecastModel, SpeechModel, TagModel, TextModel


pytestmark = [pytest.mark.slow, pytest.mark.timeout(290)]
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
WIDTHS = {"desktop": 1280, "phone": 390}
SECONDS = 60


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert program and driver, "wanted Chromium and its driver: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


class Page:
    """The page of a model."""

    def __init__(self, browser: webdriver.Chrome, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        threading.Thread(target=demo.launch_demo, args=(folder,), kwargs={"port": port}, daemon=True).start()
        self.browser, self.address = browser, f"http://127.0.0.1:{port}/"
        self.wait(lambda: _answers(port), "the page's server")

    def open(self, width: int, box: str = "#input textarea") -> None:
        metrics = {"width": width, "height": 1400, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.browser.get(self.address)
        self.wait(lambda: self.all(box), "the input")

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.02)
        raise AssertionError(f"{what} did not come within {SECONDS} s")

    def ask(self, text: str) -> None:
        self.all("#input textarea")[0].send_keys(text)
        self.all("#run")[0].click()

    def value(self, selector: str) -> str:
        return str(self.browser.execute_script(f"return document.querySelector('{selector}')?.value ?? ''"))

    def check(self) -> None:
        """Nothing came from elsewhere, and nothing is wider than the window."""
        names = self.browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert {urlsplit(name).hostname for name in names if not name.startswith("data:")} == {"127.0.0.1"}
        inside, window = self.browser.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
        assert inside <= window


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("structure", ["luong", "cho"])
def test_a_text_is_typed_and_answered(
    browser: webdriver.Chrome, structure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PACE", 0.5)  # a busy browser shows only the last of texts that come close together
    folder = text_model(structure, tmp_path)
    shown = TextModel(folder)
    ranked, page = shown.ranked("abcd", 5), Page(browser, folder)
    for name, width in WIDTHS.items():
        page.open(width)
        page.ask("abcd")
        seen: list[str] = []

        def look(seen: list[str] = seen) -> list[Any]:
            seen.append(page.value("#output textarea"))
            return page.all("#picture img")

        page.wait(look, "the picture")
        streamed = list(shown.stream("abcd"))
        assert len(set(seen) & set(streamed)) > 1, "symbol by symbol: more than the last text of greedy search is seen"
        assert page.value("#output textarea") == ranked[0].text
        table = page.all("#ranked")[0].text
        assert all(f"{one.score:.3f}".rstrip("0") in table for one in ranked)
        page.check()
        browser.save_screenshot(str(tmp_path / f"{structure}_{name}.png"))


def test_a_blank_text_is_refused_with_a_sentence(browser: webdriver.Chrome, tmp_path: Path) -> None:
    page = Page(browser, text_model("luong", tmp_path))
    page.open(WIDTHS["phone"])
    page.ask("  ")
    page.wait(lambda: "wanted one that is not blank" in browser.page_source, "the sentence")
    page.check()


def test_a_sound_is_uploaded_and_read(browser: webdriver.Chrome, tmp_path: Path) -> None:
    folder, file = kind_of("speech", tmp_path / "speech"), tmp_path / "noise.wav"
    noise = np.random.default_rng(0).integers(-9000, 9000, 2 * RATE, dtype=np.int16)
    soundfile.write(file, noise, 2 * RATE)
    page = Page(browser, folder)
    page.open(WIDTHS["phone"], "#input input[type=file]")
    page.all("#input input[type=file]")[0].send_keys(str(file))
    page.wait(lambda: "noise.wav" in browser.page_source, "the upload")
    page.all("#run")[0].click()
    page.wait(lambda: page.all("#picture img"), "the picture")
    assert page.value("#output textarea") == SpeechModel(folder).ranked((2 * RATE, noise), 5)[0].text
    page.check()
    browser.save_screenshot(str(tmp_path / "speech_phone.png"))


def test_a_sentence_is_tagged_and_a_text_classified(browser: webdriver.Chrome, tmp_path: Path) -> None:
    folder = kind_of("tagger", tmp_path / "tagger")
    page = Page(browser, folder)
    page.open(WIDTHS["phone"])
    page.ask("a h c b")
    labels = {label for _, label in TagModel(folder).tags("a h c b")}
    page.wait(lambda: all(label in page.all("#output")[0].text for label in labels), "the labels")
    page.check()
    folder = kind_of("classifier", tmp_path / "classifier")
    page = Page(browser, folder)
    page.open(WIDTHS["phone"])
    page.ask("abc")
    probabilities = ClassModel(folder).probabilities("abc")
    best = max(probabilities, key=lambda label: probabilities[label])
    page.wait(lambda: f"{100 * probabilities[best]:.0f}%" in page.all("#output")[0].text, "the probabilities")
    assert best in page.all("#output")[0].text
    page.check()


def test_a_table_is_typed_and_its_forecast_drawn(browser: webdriver.Chrome, tmp_path: Path) -> None:
    folder = kind_of("forecast", tmp_path / "forecast")
    page = Page(browser, folder)
    page.open(WIDTHS["phone"])
    page.all("#run")[0].click()
    shown = ForecastModel(folder)
    last = f"{shown.forecast(shown.example())[1][-1][1]:.4f}"[:5]
    page.wait(lambda: page.all("#output img"), "the picture")
    page.wait(lambda: last in page.all("#ahead")[0].text, "the forecast")
    page.check()
    (tmp_path / "own.csv").write_text("1,2\n3,x\n")
    page.all("#upload input[type=file], input[type=file]")[0].send_keys(str(tmp_path / "own.csv"))
    page.wait(lambda: "3,x" in page.value("#input textarea"), "the file")
    page.all("#run")[0].click()
    page.wait(lambda: "wanted a number" in page.all("body")[0].text, "the sentence")
