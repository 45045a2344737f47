"""How much of a phone is in a unit: codes and, beside them, k-means of MFCCs, against labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from vqcodec import audio
from vqcodec.codec import Codec
from vqcodec.data.labels import (
    SILENCE,
    UNLABELLED,
    LabelledClip,
    check_span,
    labels_at,
)
from vqcodec.errors import CodesError, DataError
from vqcodec.evaluation.abx import ABX, Item, abx, cosine_distances
from vqcodec.extras import library
from vqcodec.inference.units import NOBODY, Units

_MFCC_HOP_S = 0.01
_MFCC_WINDOW_S = 0.025


@dataclass(frozen=True, eq=False)
class FramedRecording:
    """A recording in frames, one for each code.

    Attributes:
        source: where it is from.
        phones: (N,) int64, the class at the centre of each frame; `UNLABELLED` where none is.
        codes: (N,) int64.
        mfcc: (N, 39) float32.
    """

    source: LabelledClip
    phones: np.ndarray
    codes: np.ndarray
    mfcc: np.ndarray


@dataclass(frozen=True, eq=False)
class Frames:
    """A labelled corpus in frames.

    Attributes:
        clips: of both parts.
        classes: phone class -> its number.
        frame_rate: frames a second.
    """

    clips: list[FramedRecording]
    classes: dict[str, int]
    frame_rate: float


@dataclass(frozen=True, eq=False)
class UnitSet:
    """One way to turn the recordings into units.

    Attributes:
        name: as reports show it.
        units: of each clip, (N,) int64 in [0, K).
        vectors: (K, D), what the units stand for.
    """

    name: str
    units: list[np.ndarray]
    vectors: np.ndarray


@dataclass(frozen=True)
class UnitScores:
    """What is measured; of the scored part, but for the map that `many_to_one` learnt elsewhere.

    Attributes:
        units: name of the units.
        has_silence: whether frames and triphones with silence count.
        n_frames: scored.
        many_to_one: share of frames whose unit has their phone as the commonest one of its
            frames in the training part.
        many_to_one_in_sample: the same, the map learnt where it is scored, as in van den Oord et
            al. 2017, section 4.3; also known as phone purity (Hsu et al. 2021, section IV-D).
        cluster_purity: share of frames whose phone has their unit as its commonest one.
        pnmi: I(phone; unit) / H(phone), phone-normalised mutual information (Hsu et al. 2021).
        v_measure: harmonic mean of homogeneity and completeness (Rosenberg, Hirschberg 2007).
        abx_within: ABX error, X said by the speaker of A and B.
        abx_across: ABX error, X said by another.
    """

    units: str
    has_silence: bool
    n_frames: int
    many_to_one: float
    many_to_one_in_sample: float
    cluster_purity: float | None = None
    pnmi: float | None = None
    v_measure: float | None = None
    abx_within: ABX | None = None
    abx_across: ABX | None = None


def frame_recordings(
    clips: Sequence[LabelledClip], codec: Codec, on_progress: Callable[[float], None] | None = None
) -> Frames:
    """Encode recordings and label their frames.

    Raises:
        AudioError: a recording cannot be read.
        CodesError: the model has several codebooks.
        DataError: labels are of another length than their recording.
    """
    classes: dict[str, int] = {}
    frame_rate = codec.sample_rate / codec.hop_length
    framed = []
    for n_done, clip in enumerate(clips, 1):
        coded = codec.encode(clip.utterance.path, speaker=NOBODY)
        check_span(clip.utterance.name, clip.intervals, coded.duration_s)
        try:
            codes = Units.of(coded).units
        except CodesError as error:
            raise CodesError(f"model {codec.name}: {error}") from None
        times = (np.arange(len(codes)) + 0.5) / frame_rate
        waveform = audio.load(clip.utterance.path, codec.sample_rate) / np.float32(coded.gain)
        framed.append(
            FramedRecording(
                clip,
                labels_at(clip.intervals, times, classes),
                codes,
                mfcc(waveform, codec.sample_rate, codec.hop_length),
            )
        )
        if on_progress:
            on_progress(n_done / len(clips))
    return Frames(framed, classes, frame_rate)


def mfcc(waveform: np.ndarray, sample_rate: int, hop_length: int) -> np.ndarray:
    """13 MFCCs and their first and second differences, for each code.

    Windows of 25 ms about every 10 ms, as in Hsu et al. 2021 (arXiv 2106.07447, section IV-B);
    where a code spans several, their mean.

    Args:
        waveform: (T,).
        sample_rate: Hz.
        hop_length: samples of a code.

    Returns:
        (ceil(T / hop_length), 39) float32.
    """
    longest = max(round(_MFCC_HOP_S * sample_rate), 1)
    n_windows = next(
        n for n in range(-(-hop_length // longest), hop_length + 1) if not hop_length % n
    )
    step = hop_length // n_windows
    n_codes = -(-len(waveform) // hop_length)
    window = round(_MFCC_WINDOW_S * sample_rate)
    n_fft = 1 << (window - 1).bit_length()
    # The first window has its centre in the middle of the first step.
    before = n_fft // 2 - step // 2
    samples = np.pad(waveform, (before, n_codes * hop_length - len(waveform) + n_fft))
    feature = library("librosa").feature
    still = feature.mfcc(
        y=samples,
        sr=sample_rate,
        n_mfcc=13,
        n_fft=n_fft,
        win_length=window,
        hop_length=step,
        center=False,
    )[:, : n_codes * n_windows]
    moving = [feature.delta(still, order=order, mode="nearest") for order in (1, 2)]
    features = np.concatenate([still, *moving]).T.reshape(n_codes, n_windows, -1)
    return features.mean(axis=1).astype(np.float32)


def code_units(frames: Frames, codec: Codec) -> UnitSet:
    """The model's own units; a unit stands for its codebook vector as the decoders get it."""
    every = torch.arange(codec.config.quantizer.codebook_size, device=codec.device)
    vectors = codec.model.latents(every[None, None])[0].T.cpu().numpy()
    return UnitSet(codec.name, [clip.codes for clip in frames.clips], vectors)


def mfcc_units(frames: Frames, n_units: int, *, is_normalised: bool, seed: int = 0) -> UnitSet:
    """K-means of the training part's MFCCs, as in Hsu et al. 2021, section IV-B.

    Args:
        frames: of both parts.
        n_units: clusters.
        is_normalised: whether the MFCCs of every recording are brought to zero mean and unit
            variance first, which takes some of the speaker out of them.
        seed: of the first centres.

    Raises:
        DataError: the training part has fewer frames than units.
    """
    features = [_normalised(clip.mfcc) if is_normalised else clip.mfcc for clip in frames.clips]
    training = np.concatenate(
        [own for own, clip in zip(features, frames.clips, strict=True) if clip.source.is_training]
    )
    if len(training) < n_units:
        raise DataError(
            f"{len(training)} frames in the training part are too few for {n_units} clusters of "
            "MFCCs; label more recordings"
        )
    clusters = library("sklearn.cluster").MiniBatchKMeans(
        n_units, batch_size=10_000, n_init=3, random_state=seed
    )
    clusters.fit(training)
    # The angle between plain MFCCs would be that of the first two, which are by far the largest.
    vectors = (clusters.cluster_centers_ - training.mean(axis=0)) / training.std(axis=0)
    return UnitSet(
        "MFCC k-means, normalised" if is_normalised else "MFCC k-means",
        [clusters.predict(own).astype(np.int64) for own in features],
        vectors,
    )


def _normalised(features: np.ndarray) -> np.ndarray:
    """(N, D), each column at zero mean and unit variance, or zero where it never changes."""
    return (features - features.mean(axis=0)) / np.maximum(features.std(axis=0), 1e-5)


def counts(phones: np.ndarray, units: np.ndarray, n_phones: int, n_units: int) -> np.ndarray:
    """How often each phone meets each unit: (N,) and (N,) -> (n_phones, n_units) int64."""
    joint = np.bincount(phones * n_units + units, minlength=n_phones * n_units)
    return joint.reshape(n_phones, n_units)


def majority_phones(table: np.ndarray) -> np.ndarray:
    """The commonest phone of every unit, (P, K) -> (K,); of an unseen unit that of all frames."""
    seen = table.sum(axis=0) > 0
    return np.where(seen, table.argmax(axis=0), table.sum(axis=1).argmax())


def tables(
    frames: Frames, unit_set: UnitSet, *, has_silence: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`counts` in the training part and in the scored part."""
    found = []
    for is_training in (True, False):
        chosen = [clip.source.is_training == is_training for clip in frames.clips]
        phones, units = (
            np.concatenate([part for part, wanted in zip(parts, chosen, strict=True) if wanted])
            for parts in ([clip.phones for clip in frames.clips], unit_set.units)
        )
        kept = phones != UNLABELLED
        if not has_silence:
            kept &= phones != frames.classes.get(SILENCE, UNLABELLED)
        found.append(counts(phones[kept], units[kept], len(frames.classes), len(unit_set.vectors)))
    return found[0], found[1]


def score(frames: Frames, unit_set: UnitSet, *, has_silence: bool) -> UnitScores:
    """Measure units.

    Raises:
        DataError: a part has no labelled frame.
    """
    training, scored = tables(frames, unit_set, has_silence=has_silence)
    _check_filled(training, scored)
    n = int(scored.sum())
    map_to_phone = majority_phones(training)
    phone, unit = _entropy(scored.sum(axis=1)), _entropy(scored.sum(axis=0))
    information = phone + unit - _entropy(scored)
    distances = cosine_distances(unit_set.vectors)
    items = list(triphones(frames, unit_set, has_silence=has_silence))
    return UnitScores(
        units=unit_set.name,
        has_silence=has_silence,
        n_frames=n,
        many_to_one=float(scored[map_to_phone, np.arange(scored.shape[1])].sum() / n),
        many_to_one_in_sample=float(scored.max(axis=0).sum() / n),
        cluster_purity=float(scored.max(axis=1).sum() / n),
        pnmi=information / phone if phone else None,
        v_measure=2 * information / (phone + unit) if phone + unit else None,
        abx_within=abx(items, distances, across=False),
        abx_across=abx(items, distances, across=True),
    )


def score_majority(frames: Frames, unit_set: UnitSet, *, has_silence: bool) -> UnitScores:
    """What calling every frame the commonest phone gives; no unit can be worse in sample."""
    training, scored = (
        table.sum(axis=1) for table in tables(frames, unit_set, has_silence=has_silence)
    )
    _check_filled(training, scored)
    n = int(scored.sum())
    return UnitScores(
        units="commonest phone",
        has_silence=has_silence,
        n_frames=n,
        many_to_one=float(scored[training.argmax()] / n),
        many_to_one_in_sample=float(scored.max() / n),
    )


def _check_filled(training: np.ndarray, scored: np.ndarray) -> None:
    for part, table in (("training", training), ("scored", scored)):
        if not table.sum():
            raise DataError(f"the {part} part has no labelled frame; label more recordings")


def _entropy(table: np.ndarray) -> float:
    """Entropy of counts in nats."""
    shares = table[table > 0] / table.sum()
    return float(-(shares * np.log(shares)).sum())


def triphones(frames: Frames, unit_set: UnitSet, *, has_silence: bool) -> Iterator[Item]:
    """Triphones of the scored part."""
    for clip, units in zip(frames.clips, unit_set.units, strict=True):
        if clip.source.is_training:
            continue
        intervals = clip.source.intervals
        names = [interval.label for interval in intervals]
        for i in range(1, len(intervals) - 1):
            if not has_silence and SILENCE in names[i - 1 : i + 2]:
                continue
            # Frames whose centre lies in the three phones.
            first, last = (
                int(np.ceil(time * frames.frame_rate - 0.5))
                for time in (intervals[i - 1].start, intervals[i + 1].end)
            )
            before, phone, after = (frames.classes.get(name) for name in names[i - 1 : i + 2])
            said = units[first:last]
            if len(said) and before is not None and phone is not None and after is not None:
                yield Item(phone, (before, after), clip.source.utterance.speaker, said)
