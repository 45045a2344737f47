"""The images of a report on units, as PNG files in memory. Needs the extra `eval`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vqcodec.evaluation.abx import cosine_distances
from vqcodec.evaluation.plots import new_figure, png
from vqcodec.extras import library

_PERPLEXITY = 30  # of t-SNE, which wants it well below the number of points


def phones(table: np.ndarray, names: Sequence[str]) -> bytes:
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


def usage(table: np.ndarray) -> bytes:
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


def codebook(vectors: np.ndarray, majority: np.ndarray, names: Sequence[str]) -> bytes:
    """Codebook vectors (K, D) by t-SNE (van der Maaten, Hinton 2008) of cosine distances.

    Each is shown as the phone that it most often stands for, `majority` (K,).
    """
    tsne = library("sklearn.manifold").TSNE(
        perplexity=min(_PERPLEXITY, (len(vectors) - 1) / 3),
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
