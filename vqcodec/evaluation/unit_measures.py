"""How much of a phone is in a unit: codes and, beside them, k-means of MFCCs, against labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from vqcodec import audio
from vqcodec.codec import Codec
from vqcodec.data.labels import SILENCE, UNLABELLED, LabelledClip, check_span, labels_at
from vqcodec.errors import CodesError, DataError
from vqcodec.evaluation.abx import ABX, Item, abx, cosine_distances
from vqcodec.evaluation.bootstrap import Mean, shares_of
from vqcodec.extras import library
from vqcodec.inference.units import NOBODY, Units

_MFCC_HOP_S = 0.01
_MFCC_WINDOW_S = 0.025
MEASURES = "many_to_one", "many_to_one_in_sample", "cluster_purity", "pnmi", "v_measure"


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
    """A labelled corpus in frames, `frame_rate` a second; `classes` numbers its phone classes."""

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
        measures: over recordings, those of `MEASURES` that make sense of the units:
            many_to_one: share of frames whose unit has their phone as the commonest one of its
            frames in the training part;
            many_to_one_in_sample: the same, the map learnt where it is scored, as in van den Oord
            et al. 2017, section 4.3; also known as phone purity (Hsu et al. 2021, section IV-D);
            cluster_purity: share of frames whose phone has their unit as its commonest one;
            pnmi: I(phone; unit) / H(phone), phone-normalised mutual information (Hsu et al. 2021);
            v_measure: harmonic mean of homogeneity and completeness (Rosenberg, Hirschberg 2007).
        abx: `abx_within`, X said by the speaker of A and B, and `abx_across`, X said by another.
    """

    units: str
    has_silence: bool
    n_frames: int
    measures: dict[str, Mean]
    abx: dict[str, ABX] = field(default_factory=dict)


def frame_recordings(
    clips: Sequence[LabelledClip], codec: Codec, on_progress: Callable[[float], None] | None = None
) -> Frames:
    """Encode recordings and label their frames.

    Raises AudioError for a recording that cannot be read, CodesError for a model of several
    codebooks and DataError for labels of another length than their recording.
    """
    classes: dict[str, int] = {}
    frame_rate = codec.sample_rate / codec.hop_length
    framed = []
    for n_done, clip in enumerate(clips, 1):
        recording = audio.open_recording(clip.utterance.path)
        coded = codec.encode(recording, speaker=NOBODY)
        check_span(clip.utterance.name, clip.intervals, coded.duration_s)
        try:
            codes = Units.of(coded).units
        except CodesError as error:
            raise CodesError(f"model {codec.name}: {error}") from None
        times = (np.arange(len(codes)) + 0.5) / frame_rate
        waveform = audio.load(recording, codec.sample_rate) / np.float32(coded.gain)
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
    """13 MFCCs and their first and second differences: (ceil(T / hop_length), 39) float32.

    Windows of 25 ms about every 10 ms, as in Hsu et al. 2021 (arXiv 2106.07447, section IV-B);
    where a code spans several, their mean.
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


def mfcc_units(frames: Frames, n_units: int, *, is_normalised: bool) -> UnitSet:
    """K-means of the training part's MFCCs, as in Hsu et al. 2021, section IV-B.

    Normalised, the MFCCs of every recording are brought to zero mean and unit variance first, which
    takes some of the speaker out of them. Raises DataError if there are fewer frames than units.
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
        n_units, batch_size=10_000, n_init=3, random_state=0
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


def majority_phones(table: np.ndarray) -> np.ndarray:
    """The commonest phone of every unit, (P, K) -> (K,); of an unseen unit that of all frames."""
    seen = table.sum(axis=0) > 0
    return np.where(seen, table.argmax(axis=0), table.sum(axis=1).argmax())


@dataclass(frozen=True, eq=False)
class LabelledFrames:
    """The frames of one part that have a phone.

    Attributes:
        shape: (P, K), numbers of phones and of units.
        pairs: (M,) int64, phone * K + unit of every frame.
        recordings: (M,) int64, of which of the N recordings that have such frames.
    """

    shape: tuple[int, int]
    pairs: np.ndarray
    recordings: np.ndarray

    def counts(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Count how often each phone meets each unit, (P, K), recordings by weights (N,)."""
        of_frames = None if weights is None else weights[self.recordings]
        return np.bincount(self.pairs, of_frames, int(np.prod(self.shape))).reshape(self.shape)


def labelled_frames(
    frames: Frames, unit_set: UnitSet, *, is_training: bool, has_silence: bool = True
) -> LabelledFrames:
    """The phones and units of one part; raises DataError if it has no labelled frame."""
    shape = len(frames.classes), len(unit_set.vectors)
    silence = UNLABELLED if has_silence else frames.classes.get(SILENCE, UNLABELLED)
    found = []
    for clip, units in zip(frames.clips, unit_set.units, strict=True):
        kept = (clip.phones != UNLABELLED) & (clip.phones != silence)
        if clip.source.is_training == is_training and kept.any():
            found.append(clip.phones[kept] * shape[1] + units[kept])
    if not found:
        part = "training" if is_training else "scored"
        raise DataError(f"the {part} part has no labelled frame; label more recordings")
    recordings = np.repeat(np.arange(len(found)), [len(own) for own in found])
    return LabelledFrames(shape, np.concatenate(found), recordings)


def score(frames: Frames, unit_set: UnitSet, *, has_silence: bool) -> UnitScores:
    """Measure units; raises DataError if a part has no labelled frame."""
    distances = cosine_distances(unit_set.vectors)
    items = list(triphones(frames, unit_set, has_silence=has_silence))
    n_frames, found = _frame_measures(frames, unit_set, has_silence=has_silence)
    errors = {
        "abx_within": abx(items, distances, across=False),
        "abx_across": abx(items, distances, across=True),
    }
    return UnitScores(unit_set.name, has_silence, n_frames, found, errors)


def score_majority(frames: Frames, *, has_silence: bool) -> UnitScores:
    """What calling every frame the commonest phone gives; no unit can be worse in sample."""
    one = [np.zeros_like(clip.codes) for clip in frames.clips]
    unit_set = UnitSet("commonest phone", one, np.ones((1, 1)))
    n_frames, found = _frame_measures(frames, unit_set, has_silence=has_silence)
    shares = {name: found[name] for name in ("many_to_one", "many_to_one_in_sample")}
    return UnitScores(unit_set.name, has_silence, n_frames, shares)


def _frame_measures(
    frames: Frames, unit_set: UnitSet, *, has_silence: bool
) -> tuple[int, dict[str, Mean]]:
    """The number of scored frames, and `MEASURES`."""
    training, scored = (
        labelled_frames(frames, unit_set, is_training=part, has_silence=has_silence)
        for part in (True, False)
    )
    phone_of = majority_phones(training.counts())

    def measures(table: np.ndarray) -> list[float]:
        """`MEASURES`, NaN where undefined."""
        n = table.sum()
        phone, unit = _entropy(table.sum(axis=1)), _entropy(table.sum(axis=0))
        information = phone + unit - _entropy(table)
        return [
            table[phone_of, np.arange(table.shape[1])].sum() / n,
            table.max(axis=0).sum() / n,
            table.max(axis=1).sum() / n,
            information / phone if phone else np.nan,
            2 * information / (phone + unit) if phone + unit else np.nan,
        ]

    means = shares_of(lambda weights: measures(scored.counts(weights)), scored.recordings[-1] + 1)
    return len(scored.pairs), dict(zip(MEASURES, means, strict=True))


def _entropy(table: np.ndarray) -> float:
    """Entropy of counts in nats."""
    shares = table[table > 0] / table.sum()
    return float(-(shares * np.log(shares)).sum())


def triphones(frames: Frames, unit_set: UnitSet, *, has_silence: bool) -> Iterator[Item]:
    """Triphones of the scored part."""
    parts = zip(frames.clips, unit_set.units, strict=True)
    for number, (clip, units) in enumerate(parts):
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
                speaker = clip.source.utterance.speaker
                yield Item(phone, (before, after), speaker, number, said)
