"""Pictures of sound and codes as SVG, without a plotting library."""

from __future__ import annotations

import base64
import colorsys
import io
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from PIL import Image

RATE = 16_000
"""Of the samples to draw, in Hz."""
COLUMNS = 960
"""Of a picture at most, whatever it shows."""
WIDTH, WAVE_HEIGHT, BAND_HEIGHT, CODES_HEIGHT, LEFT, AXIS = 480, 60, 110, 20, 40, 22
N_FFT = 512
RANGE_DB = 70.0
_STYLE = "font:11px sans-serif;fill:#888"


def picture(samples: np.ndarray | None, codes: np.ndarray | None, seconds: float) -> str:
    """Waveform, spectrogram and codes, one below the other, over one axis of time: an SVG.

    Args:
        samples: (T,) float32 at `RATE`, full scale at 1; left out when None.
        codes: (Q, N) integers, a colour each; left out when None.
        seconds: that all of it lasts.
    """
    parts, top = [], 0
    if samples is not None:
        parts += [_wave(samples, top), _label(top + WAVE_HEIGHT / 2, "wave")]
        top += WAVE_HEIGHT
        parts.append(_image(_spectrogram(samples), top, BAND_HEIGHT))
        marks = ((0.08, f"{RATE // 2000} kHz"), (0.5, f"{RATE / 4000:g}"), (0.97, "0"))
        parts += [_label(top + share * BAND_HEIGHT, text) for share, text in marks]
        top += BAND_HEIGHT
    if codes is not None:
        height = CODES_HEIGHT * len(codes)
        parts += [_image(_colours(codes), top + 4, height), _label(top + height / 2 + 8, "codes")]
        top += height + 4
    parts += [_tick(share, seconds, top) for share in (0, 0.25, 0.5, 0.75, 1)]
    size = f"0 0 {LEFT + WIDTH + 16} {top + AXIS}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" width="100%" role="img">'
        f"{''.join(parts)}</svg>"
    )


def _columns(n: int) -> Iterator[slice]:
    """Spans of n things, at most as many as there are columns."""
    edges = np.unique(np.linspace(0, n, min(n, COLUMNS) + 1).astype(int))
    yield from (slice(int(a), int(b)) for a, b in pairwise(edges))


def _wave(samples: np.ndarray, top: float) -> str:
    """The outline of a waveform, from its lowest to its highest values."""
    spans = [samples[span] for span in _columns(len(samples))]
    high = [float(span.max().clip(-1, 1)) for span in spans]
    low = [float(span.min().clip(-1, 1)) for span in spans]
    step, middle = WIDTH / len(spans), top + WAVE_HEIGHT / 2
    outline = [*enumerate(high), *reversed([*enumerate(low)])]
    points = " ".join(
        f"{LEFT + (place + 0.5) * step:.1f},{middle - value * WAVE_HEIGHT / 2:.1f}"
        for place, value in outline
    )
    return f'<polygon points="{points}" fill="#2a78b8" stroke="#2a78b8" stroke-width="0.5"/>'


def _spectrogram(samples: np.ndarray) -> np.ndarray:
    """(bands, columns, 3) uint8: the log power of as many frames as there are columns at most."""
    n_frames = min(COLUMNS, max(1, len(samples) // (N_FFT // 4)))
    padded = np.pad(samples, (N_FFT // 2, N_FFT))
    starts = np.linspace(0, len(samples), n_frames, endpoint=False).astype(int)
    frames = padded[starts[:, None] + np.arange(N_FFT)] * np.hanning(N_FFT)
    power = np.square(np.abs(np.fft.rfft(frames))).T[::-1]
    level = 10 * np.log10(power + 1e-10)
    shade = ((level - level.max()) / RANGE_DB + 1).clip(0, 1)[..., None]
    # From white over blue to nearly black, as ink on paper.
    inks = np.array([[255, 255, 255], [110, 170, 220], [20, 60, 130], [10, 10, 30]], float)
    place = shade * (len(inks) - 1)
    before = np.minimum(place[..., 0].astype(int), len(inks) - 2)
    mixed = inks[before] + (inks[before + 1] - inks[before]) * (place - before[..., None])
    return mixed.astype(np.uint8)


def _colours(codes: np.ndarray) -> np.ndarray:
    """(Q, N, 3) uint8: neighbours of the codebook are far apart on the colour circle."""
    largest = int(codes.max()) + 1
    circle = [
        colorsys.hsv_to_rgb(code * 0.618034 % 1, 0.55, 0.6 + 0.35 * (code % 3 / 2))
        for code in range(largest)
    ]
    return (np.array(circle)[codes] * 255).astype(np.uint8)


def _image(pixels: np.ndarray, top: float, height: float) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    return (
        f'<image x="{LEFT}" y="{top}" width="{WIDTH}" height="{height}" '
        f'preserveAspectRatio="none" style="image-rendering:pixelated" '
        f'href="data:image/png;base64,{data}"/>'
    )


def _label(middle: float, text: str) -> str:
    place = f'x="{LEFT - 6}" y="{middle + 4:.0f}" text-anchor="end"'
    return f'<text {place} style="{_STYLE}">{text}</text>'


def _tick(share: float, seconds: float, top: float) -> str:
    place = LEFT + share * WIDTH
    return (
        f'<line x1="{place}" x2="{place}" y1="{top}" y2="{top + 5}" stroke="#888"/>'
        f'<text x="{place}" y="{top + 17}" text-anchor="middle" style="{_STYLE}">'
        f"{share * seconds:.3g} s</text>"
    )
