"""The page of web/ in Chromium: its weight, times and codes; see benchmarks/README.md."""

from __future__ import annotations

import functools
import http.server
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import soundfile
import typer
from command import Output, facts_table, publish, run

import vqcodec
from vqcodec.audio import load, open_recording
from vqcodec.errors import VqcodecError
from vqcodec.inference.encoding import DOUBT

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "samples" / "rms.wav"
SECONDS = 5
VOICE = "p225"
PATIENCE_MS = 600_000


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that does not tell what it is asked for."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on loopback."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@contextmanager
def visited(address: str) -> Iterator[Any]:
    """The page in a headless Chromium.

    Raises:
        VqcodecError: there is no Chromium.
    """
    chromium = shutil.which("chromium")
    if chromium is None:
        raise VqcodecError("chromium: is not installed; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        page.get_by_text("Ready").wait_for()
        yield page
        browser.close()


def seconds_told(page: Any, what: str) -> float:
    """That the page says it took."""
    page.get_by_text(f"{what} in").wait_for()
    told = re.search(rf"{what} in ([\d.]+) s", page.inner_text("#status"))
    assert told
    return float(told[1])


def encoded(page: Any, path: Path) -> tuple[np.ndarray, float]:
    """The codes (N,) that the page makes of a recording, and the seconds that it took."""
    page.set_input_files("#file", str(path))
    page.get_by_text(f"{path.name}, ").wait_for()
    seconds = seconds_told(page, "Encoded")
    return np.array(page.inner_text("#units").split(), dtype=int), seconds


def compared(page: Any, recordings: list[Path], folder: Path) -> list[dict[str, Any]]:
    """Of each recording, at 16 kHz, how many codes are not those of the library."""
    codec = vqcodec.load(engine="onnx", voices=False)
    rows = []
    for number, path in enumerate(recordings):
        own = folder / f"{number}.wav"
        soundfile.write(own, load(path, codec.sample_rate), codec.sample_rate, "FLOAT")
        found, seconds = encoded(page, own)
        expected = codec.encode(own)
        differing = np.flatnonzero(found != expected.codes[0])
        margins = margins_of(codec, own, expected.gain)[differing]
        rows.append(
            {
                "recording": path.name,
                "seconds": expected.duration_s,
                "encoding_s": seconds,
                "codes": len(found),
                "differing": len(differing),
                "near_ties": np.count_nonzero(margins < DOUBT),
            }
        )
        told = "".join(f", by {margin:.1e}" for margin in margins)
        typer.echo(f"{path}: {len(differing)} of {len(found)} codes differ{told}")
    return rows


def margins_of(codec: vqcodec.Codec, path: Path, gain: float) -> np.ndarray:
    """By how much the library's codes (N,) of a recording won."""
    recording = open_recording(path)
    (samples,) = recording.speech(codec.sample_rate, recording.n_samples, gain)
    padded = np.pad(samples, (0, -len(samples) % codec.hop_length))
    return codec.engine.encode_chunk(padded / np.float32(gain)).margins


def weights(page: Path) -> dict[str, str]:
    """Of the parts of a built page, in MB."""
    parts = {"model": "model/*", "onnxruntime-web": "onnxruntime/*", "the page itself": "*.*"}
    return {
        f"MB of {part}": f"{sum(path.stat().st_size for path in page.glob(pattern)) / 1e6:.2f}"
        for part, pattern in parts.items()
    }


def main(
    recordings: Annotated[
        list[Path] | None, typer.Argument(help="Whose codes are compared with the library's.")
    ] = None,
    page: Annotated[Path, typer.Option(help="As make web built it.")] = ROOT / "web" / "dist",
    output: Output = Path("report"),
) -> None:
    """Visit the page of speech-1k; write browser.csv and browser.md."""
    if not (page / "index.html").exists():
        raise VqcodecError(f"{page}: holds no page; make web builds it")
    with tempfile.TemporaryDirectory() as folder, served(page) as address:
        began = time.monotonic()
        with visited(address) as visit:
            facts = weights(page) | {"seconds to load": f"{time.monotonic() - began:.1f}"}
            clip = Path(folder, "clip.wav")
            samples, rate = soundfile.read(SAMPLE, dtype="int16")
            soundfile.write(clip, samples[: SECONDS * rate], rate)
            encoded(visit, clip)  # the first time it is still being compiled
            facts[f"seconds to encode {SECONDS} s"] = f"{encoded(visit, clip)[1]:.1f}"
            visit.get_by_role("radio", name=VOICE).check()
            visit.get_by_role("button", name="Hear it").click()
            facts[f"seconds to decode them as {VOICE}"] = f"{seconds_told(visit, 'Decoded'):.1f}"
            rows = compared(visit, recordings or [SAMPLE], Path(folder))
    sums = {name: sum(row[name] for row in rows) for name in ("codes", "differing", "near_ties")}
    facts["codes that are not the library's"] = f"{sums['differing']} of {sums['codes']}"
    facts["of these near ties"] = f"{sums['near_ties']}"
    summary = facts_table(facts)
    publish(output, "browser", rows, summary)


if __name__ == "__main__":
    run(main)
