"""ABX discrimination: are two sayings of one triphone nearer to each other than to its neighbour?

Source: Schatz, Peddinti, Bach, Jansen, Hermansky, Dupoux 2013, *Evaluating speech features with
the minimal-pair ABX task*, Interspeech; computed here on sequences of units.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vqcodec.compilation import compiled
from vqcodec.evaluation.bootstrap import Mean, shares_of

MAX_CELLS = 20_000
TRIPLES_PER_CELL = 10


class Item(NamedTuple):
    """A triphone as somebody said it.

    Attributes:
        phone, context: class of the middle phone, and of those before and after it.
        speaker, recording: who says it, and the number of the recording.
        units: (N,) int64 of the three phones, N > 0.
    """

    phone: int
    context: tuple[int, int]
    speaker: str
    recording: int
    units: np.ndarray


class ABX(NamedTuple):
    """How often units confuse two phones.

    Attributes:
        error: 0 to 0.5, where 0.5 is chance; without a value where there is no pair of phones.
        n_pairs: ordered pairs of phones.
        n_triples: of A, B and X that were compared.
    """

    error: Mean
    n_pairs: int
    n_triples: int


class _Cell(NamedTuple):
    pair: tuple[int, int]
    a: list[Item]
    b: list[Item]
    x: list[Item]


def cosine_distances(vectors: np.ndarray) -> np.ndarray:
    """Vectors (K, D) -> (K, K) float64, 1 - cosine, in [0, 2]."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions = vectors.astype(np.float64) / np.maximum(lengths, 1e-12)
    return 1 - directions @ directions.T


def abx(items: Sequence[Item], distances: np.ndarray, *, across: bool, seed: int = 0) -> ABX:
    """ABX error of units, 0.5 at chance.

    A and X are two sayings of one triphone; B differs from them in the middle phone alone and is
    said by the speaker of A. X is wrong if it is nearer to B than to A by dynamic time warping (the
    mean distance along the path), half wrong if it is as near. The error is averaged over at most
    `TRIPLES_PER_CELL` triples for a pair of phones, a context and a speaker, then over contexts and
    speakers (`MAX_CELLS` of these at most, drawn with the triples), then over pairs.

    Args:
        items: of all speakers.
        distances: (K, K) between units.
        across: whether X is said by another speaker than A and B, or by the same.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    cells = _cells(items, across=across)
    if len(cells) > MAX_CELLS:
        cells = [cells[i] for i in np.sort(rng.choice(len(cells), MAX_CELLS, replace=False))]
    triples = [
        (number, cell.a[a], cell.b[b], cell.x[x])
        for number, cell in enumerate(cells)
        for a, b, x in _triples(cell, rng)
    ]
    if not triples:
        return ABX(Mean(None, 0), 0, 0)
    cell_of = np.array([number for number, *_ in triples])
    wrong = np.array([_wrong(a.units, b.units, x.units, distances) for _, a, b, x in triples])
    pairs, pair_of = np.unique([cell.pair for cell in cells], axis=0, return_inverse=True)
    recordings = [[item.recording for item in said] for _, *said in triples]
    who, recording_of = np.unique(recordings, return_inverse=True)

    def error(weights: np.ndarray) -> list[float]:
        """Where a triple counts as often as its three recordings are drawn together."""
        counts = weights[recording_of].prod(axis=1)
        of_cell = _means(cell_of, wrong, counts, len(cells))
        of_pair = _means(pair_of, of_cell, ~np.isnan(of_cell), len(pairs))
        return [float(np.nanmean(of_pair)) if np.isfinite(of_pair).any() else np.nan]

    (mean,) = shares_of(error, len(who))
    return ABX(mean, len(pairs), len(wrong))


def _means(
    groups: np.ndarray, values: np.ndarray, weights: np.ndarray, n_groups: int
) -> np.ndarray:
    """Weighted means by group; NaN of a group without weight."""
    total = np.bincount(groups, np.where(weights, values, 0) * weights, n_groups)
    of_groups = np.bincount(groups, weights, n_groups)
    return np.divide(total, of_groups, out=np.full(n_groups, np.nan), where=of_groups > 0)


def _cells(items: Sequence[Item], *, across: bool) -> list[_Cell]:
    # context -> phone -> speaker -> items
    groups: dict[tuple[int, int], dict[int, dict[str, list[Item]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for item in items:
        groups[item.context][item.phone][item.speaker].append(item)
    cells = []
    for phones in groups.values():
        for phone, by_speaker in phones.items():
            for speaker, own in by_speaker.items():
                others = [
                    item for who, said in by_speaker.items() if who != speaker for item in said
                ]
                x = others if across else own
                if not x or (len(own) < 2 and not across):
                    continue
                cells += [
                    _Cell((phone, other), own, phones[other][speaker], x)
                    for other in phones
                    if other != phone and speaker in phones[other]
                ]
    return cells


def _triples(cell: _Cell, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Places of A, B and X in a cell: all if they are few, else some at random."""
    shape = len(cell.a), len(cell.b), len(cell.x)
    n = int(np.prod(shape))
    picks = np.arange(n) if n <= TRIPLES_PER_CELL else rng.integers(n, size=2 * TRIPLES_PER_CELL)
    places = np.stack(np.unravel_index(picks, shape), axis=1).tolist()
    distinct = [(a, b, x) for a, b, x in places if cell.a[a] is not cell.x[x]]
    return distinct[:TRIPLES_PER_CELL]


def _wrong(a: np.ndarray, b: np.ndarray, x: np.ndarray, distances: np.ndarray) -> float:
    to_a, to_b = _warped(a, x, distances), _warped(b, x, distances)
    return 0.5 if to_a == to_b else float(to_a > to_b)


@compiled
def _warped(first: np.ndarray, second: np.ndarray, distances: np.ndarray) -> float:
    """Mean distance along the cheapest path through two sequences of units."""
    n, m = len(first), len(second)
    cost = np.full((n + 1, m + 1), np.inf)
    length = np.zeros((n + 1, m + 1), np.int64)
    cost[0, 0] = 0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            before = i - 1, j - 1
            if cost[i - 1, j] < cost[before]:
                before = i - 1, j
            if cost[i, j - 1] < cost[before]:
                before = i, j - 1
            cost[i, j] = cost[before] + distances[first[i - 1], second[j - 1]]
            length[i, j] = length[before] + 1
    return cost[n, m] / length[n, m]
