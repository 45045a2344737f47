"""The images of a report, as PNG files in memory. Needs the extra `eval`."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from vqcodec.evaluation.summary import BIT_RATE, TRAINED_ON_MARK, WORD_ERROR_RATE, Mean
from vqcodec.extras import library

_PANELS = (
    ("STOI", f"STOI {TRAINED_ON_MARK}, higher is better"),
    ("PESQ-WB", "PESQ-WB, higher is better"),
    ("speaker similarity", "speaker similarity, higher is better"),
    (WORD_ERROR_RATE, "word error rate in %, lower is better"),
)
_LEGEND_COLUMNS = 3  # of names as long as ours
_LOWEST_DB, _HIGHEST_DB = -90, -20  # of spectrograms: where speech lies below a full-scale sine


def rates(
    means: Mapping[str, Mapping[str, Mean]], *, ours: Collection[str], original: str
) -> bytes:
    """Quality against bit rate, a panel for each of four measures.

    Args:
        means: codec -> column -> mean over files.
        ours: names of the codecs to be seen first.
        original: name of what was not coded, a line across the panels.
    """
    figure = new_figure(10, 7.5)
    axes = figure.subplots(2, 2).ravel()
    for axis, (name, title) in zip(axes, _PANELS, strict=True):
        for codec, own in means.items():
            rate, value = own[BIT_RATE].value, own[name].value
            if value is None:
                continue
            if codec == original:
                axis.axhline(value, color="grey", linestyle="--", label=f"{original}, not coded")
            elif rate is not None:
                style = {"marker": "*", "markersize": 15} if codec in ours else {"marker": "o"}
                axis.plot(rate, value, linestyle="", label=codec, **style)
        axis.set(title=title, xscale="log", xlabel="kbit/s, every byte of the file counted")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.margins(0.1)
        axis.grid(alpha=0.3)
    # A measure may be undefined for some or all.
    named = {
        label: handle
        for axis in axes
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    if named:
        columns = min(len(named), _LEGEND_COLUMNS)
        figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns)
    return png(figure, dpi=120)


def spectrogram(waveform: np.ndarray, sample_rate: int) -> bytes:
    """A spectrogram of (T,), full scale 1: 32 ms windows every 8 ms, one scale in all images."""
    n_fft = sample_rate * 32 // 1000
    librosa = library("librosa")
    waveform = np.pad(waveform, (0, max(0, n_fft - len(waveform))))
    magnitude = np.abs(librosa.stft(waveform, n_fft=n_fft, hop_length=n_fft // 4))
    level = librosa.amplitude_to_db(magnitude, ref=n_fft / 4, top_db=None)
    figure = new_figure(5, 2.2)
    axis = figure.subplots()
    axis.imshow(
        level,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=_LOWEST_DB,
        vmax=_HIGHEST_DB,
        extent=(0, len(waveform) / sample_rate, 0, sample_rate / 2000),
    )
    axis.set(xlabel="s", ylabel="kHz")
    return png(figure, dpi=100)


def new_figure(width: float, height: float) -> Any:
    """Of so many inches; without pyplot, which would choose a window system and keep figures."""
    return library("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def png(figure: Any, *, dpi: int) -> bytes:
    """A matplotlib figure as a PNG file of so many dots per inch."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()
