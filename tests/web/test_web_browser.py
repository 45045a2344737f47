"""The page of web/ in a headless Chromium, from a plain file server, as its visitors use it."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command_line import ROOT, needs
from recordings import RATE, SAMPLES, spoken, write

import vqcodec
from vqcodec.inference.encoding import DOUBT

sync_api = pytest.importorskip("playwright.sync_api")
RUNTIME = ROOT / "web" / "node_modules" / "onnxruntime-web"
pytestmark = [
    needs("chromium"),
    pytest.mark.skipif(not RUNTIME.exists(), reason="onnxruntime-web is not installed: make web"),
]
PATIENCE_MS = 120_000
VOICE = "p225"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the page with the packaged model, in a folder of a server."""
    root = tmp_path_factory.mktemp("served")
    built = root / "some where" / "page"
    subprocess.run([sys.executable, ROOT / "tools" / "web.py", "-o", built], check=True)
    handler = functools.partial(Quiet, directory=str(root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/some%20where/page/"
        server.shutdown()


@pytest.fixture(scope="module")
def page(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Loaded, and from then on without a network; its microphone hears somebody speak."""
    said = write(tmp_path_factory.mktemp("microphone") / "said.wav", spoken("slt"))
    options = ["--no-sandbox", "--use-fake-device-for-media-stream"]
    options += ["--use-fake-ui-for-media-stream", f"--use-file-for-fake-audio-capture={said}"]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        page = browser.new_context(permissions=["microphone"]).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.asked, page.faults = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on("console", lambda line: page.faults.append(line.text))
        page.goto(address)
        page.get_by_text("Ready").wait_for()
        page.context.set_offline(True)
        yield page
        assert page.faults == []
        # Nobody else learns of it.
        assert [url for url in page.asked if not url.startswith((address, "blob:", "data:"))] == []
        browser.close()


def encode(page: Any, path: Path) -> np.ndarray:
    """The codes (N,) that the page shows."""
    page.set_input_files("#file", str(path))
    page.get_by_text(f"{path.name}, ").wait_for()
    page.get_by_text("Encoded in").wait_for()
    return np.array(page.inner_text("#units").split(), dtype=int)


def convert(page: Any, voice: str) -> None:
    page.get_by_role("radio", name=voice).check()
    page.get_by_role("button", name="Hear it").click()
    page.get_by_text("Decoded in").wait_for()


def downloaded(page: Any, link: str) -> Path:
    with page.expect_download() as download:
        page.get_by_role("link", name=link).click()
    return Path(download.value.path())


@pytest.mark.parametrize("name", ["slt.wav", "rms.wav", "espeak.wav"])
def test_codes_are_the_librarys(page: Any, name: str) -> None:
    codec = vqcodec.load(voices=False)
    expected = codec.encode(SAMPLES / name)
    found = encode(page, SAMPLES / name)
    assert found.shape == expected.codes[0].shape
    differing = np.flatnonzero(found != expected.codes[0])
    samples, rate = soundfile.read(SAMPLES / name, dtype="float32")
    print(f"{name}: {len(differing)} of {len(found)} codes differ")
    if rate == RATE:  # which needs no resampling: none but near ties may differ
        padded = np.pad(samples, (0, -len(samples) % codec.hop_length))
        margins = codec.engine.encode_chunk(padded / np.float32(expected.gain)).margins
        assert (margins[differing] < DOUBT).all()
    assert len(differing) <= len(found) // 100
    bits = f"{len(found)} codes of 11 bits and {len(found) // 4} symbols of pitch of 6 bits"
    assert bits in page.inner_text("#bits")


def test_a_recording_is_converted_and_heard(page: Any) -> None:
    codec = vqcodec.load(voices=False)
    encode(page, SAMPLES / "slt.wav")
    file = downloaded(page, "Download .codes")
    assert file.read_bytes() == codec.encode(SAMPLES / "slt.wav")._packed()
    page.get_by_text("Packed bits").click()
    packed = bytes.fromhex(page.inner_text("#packed"))
    assert file.read_bytes().endswith(packed)
    assert f"{len(packed)} bytes packed" in page.inner_text("#bits")
    convert(page, VOICE)
    expected = codec.convert(SAMPLES / "slt.wav", speaker=VOICE)
    assert error_db(downloaded(page, "Download .wav"), expected) < -40
    duration = page.wait_for_function("document.querySelector('#result-player').duration")
    assert duration.json_value() == pytest.approx(len(expected) / RATE, abs=0.01)


def error_db(path: Path, expected: np.ndarray) -> float:
    """Of what the page made by weights of half as many bytes, in samples of 16 bits."""
    found, rate = soundfile.read(path)
    assert (rate, len(found)) == (RATE, len(expected))
    return float(10 * np.log10(np.square(found - expected).sum() / np.square(expected).sum()))


def test_its_own_voice_is_made_higher(page: Any, tmp_path: Path) -> None:
    clip = write(tmp_path / "clip.wav", spoken("rms", 0.0, 1.5))
    encode(page, clip)
    page.get_by_role("slider", name="Pitch").fill("3")
    convert(page, "Its own")
    assert page.inner_text("#result-title") == "By its own voice, +3 semitones"
    page.get_by_role("slider", name="Pitch").fill("0")
    codec = vqcodec.load(voices=False)
    expected = codec.decode(codec.encode(clip), pitch=3)
    assert error_db(downloaded(page, "Download .wav"), expected) < -40


def test_keys_are_enough(page: Any, tmp_path: Path) -> None:
    encode(page, write(tmp_path / "keys.wav", spoken("slt", 0.0, 0.5)))
    page.get_by_role("radio", name="Its own").focus()
    page.keyboard.press("ArrowDown")
    chosen = page.locator("#voices input:checked").input_value()
    for _ in range(2):
        page.keyboard.press("Tab")  # over the pitch to the button
    page.keyboard.press("Enter")
    page.get_by_text("Decoded in").wait_for()
    result = page.get_by_role("link", name="Download .wav").get_attribute("download")
    assert result == f"keys.{chosen}.wav" != "keys.own.wav"


def test_who_speaks_is_heard(page: Any) -> None:
    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Stop (1 s)").click()
    page.get_by_text("The recording, ").wait_for()
    page.get_by_text("Encoded in").wait_for()
    n_codes = len(page.inner_text("#units").split())
    assert 125 <= n_codes <= 500


def test_what_cannot_be_used_is_told(page: Any, tmp_path: Path) -> None:
    speech = spoken("slt", 0.0, 1.0)
    wrong = tmp_path / "wrong.wav"
    wrong.write_text("no recording")
    cut = write(tmp_path / "cut.wav", speech)
    cut.write_bytes(cut.read_bytes()[:-1000])
    cases = {
        wrong: "wrong.wav is no sound that this browser can read: convert it to WAV",
        cut: "cut.wav is cut short: copy or export it again",
        write(tmp_path / "silent.wav", 0 * speech): (
            "silent.wav is silent: check the microphone, or choose another file"
        ),
        write(tmp_path / "short.wav", speech[:1600]): (
            "short.wav is only 0.10 s long: record 0.25 s or more"
        ),
        write(tmp_path / "long.wav", speech.repeat(301)): (
            "long.wav is 301 s long: cut it to 300 s or less"
        ),
        write(tmp_path / "low.wav", speech[:8000], 4000): (
            "low.wav is at 4000 Hz: convert it to between 8000 and 192000 Hz"
        ),
    }
    for path, told in cases.items():
        page.set_input_files("#file", str(path))
        page.get_by_role("alert").get_by_text(told, exact=True).wait_for()
        assert page.get_by_role("button", name="Hear it").is_disabled()
    encode(page, write(tmp_path / "right.flac", speech))
    assert page.get_by_role("alert").is_hidden()


def test_long_work_is_cancelled(page: Any, tmp_path: Path) -> None:
    page.set_input_files("#file", str(write(tmp_path / "long.wav", np.tile(spoken("rms"), 10))))
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel").wait_for(state="hidden")
    assert page.get_by_role("button", name="Hear it").is_disabled()
    page.get_by_role("button", name="Use the sample").click()
    page.get_by_text("Encoded in").wait_for()
    assert page.get_by_role("button", name="Hear it").is_enabled()
