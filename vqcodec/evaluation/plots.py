"""The images of reports, as PNG files in memory. Needs the extra `eval`."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vqcodec.evaluation.abx import cosine_distances
from vqcodec.evaluation.bootstrap import Mean
from vqcodec.evaluation.report import BIT_RATE, TRAINED_ON_MARK, WORD_ERROR_RATE
from vqcodec.extras import library

_PANELS = (
    ("STOI", f"STOI {TRAINED_ON_MARK}, higher is better"),
    ("PESQ-WB", "PESQ-WB, higher is better"),
    ("speaker similarity", "speaker similarity, higher is better"),
    (WORD_ERROR_RATE, "word error rate in %, lower is better"),
)
_LEGEND_COLUMNS = 3  # of names as long as ours
_TSNE_PERPLEXITY = 30  # should be well below the number of points
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


def phones_of_units(table: np.ndarray, names: Sequence[str]) -> bytes:
    """Heat map of P(phone | unit) from counts (P, K), units by their commonest phone."""
    order = np.argsort(-table.sum(axis=1), kind="stable")
    order = order[table.sum(axis=1)[order] > 0]
    table = table[order][:, table.sum(axis=0) > 0]
    shares = table / table.sum(axis=0)
    units = np.lexsort((-shares.max(axis=0), shares.argmax(axis=0)))
    figure = new_figure(12, 0.18 * len(order) + 1.5)
    axes = figure.subplots()
    image = axes.imshow(shares[:, units], aspect="auto", interpolation="nearest", cmap="magma")
    axes.set_yticks(range(len(order)), [names[i] for i in order], fontsize=7)
    axes.set_xlabel(f"{len(units)} units in use, by their commonest phone")
    axes.set_ylabel("phone")
    figure.colorbar(image, label="P(phone | unit)")
    return png(figure, dpi=120)


def unit_usage(table: np.ndarray) -> bytes:
    """Share of frames of every unit, the commonest first, from counts (P, K)."""
    shares = np.sort(table.sum(axis=0))[::-1] / table.sum()
    used = shares[shares > 0]
    perplexity = np.exp(-(used * np.log(used)).sum())
    figure = new_figure(7, 4)
    axes = figure.subplots()
    axes.step(range(1, len(shares) + 1), shares, where="mid")
    axes.set_yscale("log")
    axes.set_xlabel("unit, by rank")
    axes.set_ylabel("share of frames")
    axes.set_title(f"{len(used)} of {len(shares)} units in use, perplexity {perplexity:.1f}")
    return png(figure, dpi=120)


def codebook_map(vectors: np.ndarray, majority: np.ndarray, names: Sequence[str]) -> bytes:
    """Codebook vectors (K, D) by t-SNE (van der Maaten, Hinton 2008) of cosine distances.

    Each is shown as the phone that it most often stands for, `majority` (K,).
    """
    tsne = library("sklearn.manifold").TSNE(
        perplexity=min(_TSNE_PERPLEXITY, (len(vectors) - 1) / 3),
        metric="precomputed",
        init="random",
        random_state=0,
    )
    points = tsne.fit_transform(cosine_distances(vectors).clip(min=0))
    colours = library("matplotlib").colormaps["hsv"]
    figure = new_figure(9, 9)
    axes = figure.subplots()
    axes.scatter(*points.T, s=0)
    for point, phone in zip(points, majority, strict=True):
        colour = colours(phone / len(names))
        axes.text(*point, names[phone], color=colour, fontsize=8, ha="center", va="center")
    axes.set_axis_off()
    axes.set_title("Codebook vectors, each as the phone it most often stands for")
    return png(figure, dpi=120)


def new_figure(width: float, height: float) -> Any:
    """Of so many inches; without pyplot, which would choose a window system and keep figures."""
    return library("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def png(figure: Any, *, dpi: int) -> bytes:
    """A matplotlib figure as a PNG file of so many dots per inch."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()
