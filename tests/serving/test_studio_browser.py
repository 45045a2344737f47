"""The studio in a headless Chromium, as its visitors use it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from recordings import spoken, write

sync_api = pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
PATIENCE_MS = 120_000


class Server:
    """A `vqcodec studio`: its process, address, and the folder that it keeps files in."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "vqcodec", "studio", "--port", "0", "--max-seconds", "120"]
        self.process = subprocess.Popen(
            [*command, "--model", str(model)],
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.address = self.process.stdout.readline().split()[1]

    def files(self) -> list[str]:
        """Names of what lies there."""
        return sorted(path.name for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def tiny_model(packaged: Path) -> Path:
    """One that the studio needs no torch for."""
    return packaged


@pytest.fixture(scope="module")
def server(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tiny_model, tmp_path_factory.mktemp("studio"))
    yield server
    server.process.terminate()
    assert server.process.wait(60) == 143
    assert not list(server.folder.iterdir())


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One whose microphone hears somebody speak."""
    said = write(tmp_path_factory.mktemp("microphone") / "said.wav", spoken("slt"))
    options = ["--no-sandbox", "--use-fake-device-for-media-stream"]
    options += ["--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={said}"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    page = opened(browser, server)
    yield page
    page.context.close()


def opened(browser: Any, server: Server) -> Any:
    """The page for a new visitor."""
    page = browser.new_context(permissions=["microphone"]).new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(server.address)
    page.wait_for_selector("#hear")
    return page


def upload(page: Any, where: str, path: Path) -> None:
    page.set_input_files(f"#{where} input[type=file]", str(path))


def choose(page: Any, voice: str) -> None:
    page.click("#voice input")
    page.click(f"[role=option]:has-text('{voice}')")


def hear(page: Any) -> None:
    page.click("#hear")
    page.wait_for_selector("#sound-drawn svg[role=img]")


def downloaded(page: Any, button: str) -> bytes:
    with page.expect_download() as download:
        page.click(f"text={button}")
    return Path(download.value.path()).read_bytes()


def test_a_recording_is_converted_and_heard(
    page: Any, server: Server, run: Run, clip: Path, tiny_model: Path, tmp_path: Path
) -> None:
    upload(page, "recording", clip)
    page.wait_for_selector("#drawn svg[role=img]")
    assert "63 codes of 11 bits, 125 a second" in page.inner_text("#described")
    choose(page, "anna")
    hear(page)
    duration = page.wait_for_function(
        "() => [...document.querySelectorAll('#sound *')].flatMap(e => [e, ...(e.shadowRoot?."
        "querySelectorAll('*') ?? [])]).find(e => e.tagName == 'AUDIO' && e.duration > 0)?.duration"
    )
    assert duration.json_value() == pytest.approx(0.5, abs=0.01)
    codes, sound = tmp_path / "a.codes", tmp_path / "a.wav"
    assert run("encode", clip, codes, "--model", tiny_model).status == 0
    done = run("convert", clip, "--speaker", "anna", "-o", sound, "--model", tiny_model)
    assert done.status == 0
    assert downloaded(page, "Download .codes") == codes.read_bytes()
    assert downloaded(page, "Download .wav") == sound.read_bytes()
    # Nobody else learns of it.
    ours = (server.address, "data:", "blob:")
    assert [url for url in page.asked if not url.startswith(ours)] == []


def test_who_speaks_is_heard(page: Any) -> None:
    page.click("#recording button[aria-label='Record audio']")
    page.click("#recording button:has-text('Record')")
    page.wait_for_timeout(1000)
    page.click("#recording button:has-text('Stop')")
    page.wait_for_selector("#described :text('codes of 11 bits')")
    hear(page)


def test_a_code_file_takes_the_place_of_a_recording(page: Any, codes: Path, clip: Path) -> None:
    upload(page, "recording", clip)
    page.wait_for_selector("#drawn svg[role=img] polygon")
    upload(page, "code-file", codes)
    page.wait_for_selector("#drawn svg[role=img]:not(:has(polygon))")
    assert page.locator("#recording input[type=file]").count() == 1  # which asks for one again
    hear(page)


def test_a_wrong_file_is_told_and_leaves_nothing_to_hear(
    page: Any, clip: Path, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.wav"
    wrong.write_text("no recording")
    upload(page, "recording", wrong)
    page.wait_for_selector("text=wrong.wav: is not audio that can be read")
    page.click("#hear")
    page.wait_for_selector("text=nothing to hear yet")
    assert page.locator("#drawn svg[role=img]").count() == 0


def test_two_visitors_do_not_meet(
    browser: Any, server: Server, page: Any, clip: Path, tmp_path: Path
) -> None:
    other = opened(browser, server)
    upload(page, "recording", clip)
    upload(other, "recording", write(tmp_path / "other.wav", spoken("rms", 0.2, 1.0)))
    for each, n_codes in ((page, 63), (other, 100)):
        each.wait_for_selector(f"#described :text('{n_codes} codes of')")
    other.click("text=Another voice")
    upload(other, "reference", write(tmp_path / "bea.wav", spoken("slt", 0.0, 2.0)))
    other.wait_for_selector("#reference button[aria-label='Play']")
    other.fill("#name textarea, #name input", "bea")
    other.click("#enroll")
    other.wait_for_function("document.querySelector('#voice input').value.startsWith('bea')")
    for each in (page, other):
        each.click("#hear")
    for each in (page, other):
        each.wait_for_selector("#sound-drawn svg[role=img]")
    assert downloaded(page, "Download .wav") != downloaded(other, "Download .wav")
    page.click("#voice input")
    assert "bea" not in page.inner_text("[role=listbox]")
    assert "other.bea.fast.wav" in server.files()
    other.context.close()
    for _ in range(600):
        if not {"other.wav", "bea.wav", "other.bea.fast.wav"} & {*server.files()}:
            break
        time.sleep(0.1)
    assert "clip.wav" in server.files()
    assert not {"other.wav", "bea.wav", "other.bea.fast.wav"} & {*server.files()}


def test_long_work_is_cancelled(page: Any, tmp_path: Path) -> None:
    upload(page, "recording", write(tmp_path / "long.wav", spoken("rms").repeat(5)))
    page.wait_for_selector("#drawn svg[role=img]")
    page.click("label:has-text('wavenet')")
    page.click("#hear")
    page.wait_for_selector("#sound :text('decoding')")
    page.click("#cancel")
    page.wait_for_selector("#sound :text('decoding')", state="detached")
    assert page.locator("#sound-drawn svg[role=img]").count() == 0
    page.click("label:has-text('fast')")
    hear(page)
