"""How much of the voice the codes hold, and how much the decoder leans on them.

Probes are small models that try to tell the speaker and the pitch from codes, in the manner of
Chorowski et al. 2019 (arXiv 1901.08810, section IV), and from MFCCs for comparison. Needs the
extra `eval`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from vqcodec.audio import load, open_recording
from vqcodec.codec import Codec
from vqcodec.data.corpora import Utterance
from vqcodec.errors import DataError
from vqcodec.evaluation.bootstrap import ratio
from vqcodec.evaluation.quality import track_pitch
from vqcodec.evaluation.recognition import Recognizer
from vqcodec.evaluation.reliance import Measurement, measure_reliance
from vqcodec.evaluation.report import (
    TRAINED_ON_NOTE,
    cell,
    clips,
    heading,
    markdown_table,
    spread,
    write_report,
)
from vqcodec.extras import library
from vqcodec.format.codes import Codes
from vqcodec.inference.encoding import Progress

_Labelled = tuple[np.ndarray, Sequence[str] | np.ndarray]

MIN_CLIPS, MAX_CLIPS = 1, 20
MAX_DECODED = 40

_WINDOW_S = 1.0
_N_MFCC, _N_FFT = 13, 512
_CONTEXT = 4  # codes on each side that the pitch probe sees
_MAX_FRAMES = 50_000
_MAX_ITERATIONS = 2000

HISTOGRAM, VECTORS, MFCCS = "histogram of codes", "code vectors", "MFCCs"

_NOTES = (
    f"A speaker is told from the statistics of a recording, or of each {_WINDOW_S:g} s of it (the "
    "normalised histogram of its codes, or mean and standard deviation of its code vectors or "
    "MFCCs, 13 and their deltas), standardised, by multinomial logistic regression; pitch is told "
    f"in voiced frames from the {2 * _CONTEXT + 1} nearest frames by ridge regression. Both are "
    "fitted to the training recordings and scored on test recordings of the same speakers. "
    "Chance is the share of the most frequent speaker, or R² of a constant. A probe also hears "
    "microphone and room where every speaker has his own.\n\n"
    "Mel distance in nepers between the original and what is decoded, means over files. In "
    "brackets the interval that holds a value with 95 % confidence (bootstrap over recordings)."
)


@dataclass(frozen=True, eq=False)
class _Recording:
    """A recording, at one frame for each code.

    Attributes:
        frames: `VECTORS` (N, D) latents that the decoders get, `MFCCS` (N, 26) with deltas.
        log_f0: (N,) in nepers above 1 Hz, NaN where unvoiced.
    """

    utterance: Utterance
    codes: Codes
    frames: dict[str, np.ndarray]
    log_f0: np.ndarray


def leakage(
    corpus: Path,
    output: Path,
    codec: Codec,
    *,
    min_clips: int = MIN_CLIPS,
    max_clips: int = MAX_CLIPS,
    recognizer: Recognizer | None = None,
    on_progress: Progress | None = None,
) -> str:
    """Measure how much of the voice is in the codes; write leakage.csv and leakage.md.

    Args:
        corpus: as of `comparison.compare`; its splits `train` and `test` are used.
        output: folder of the report.
        codec: whose codes.
        min_clips: recordings that a speaker must have in either split to take part.
        max_clips: recordings of a speaker in either split that are used.
        recognizer: of the words in what is decoded; none are counted when None.
        on_progress: called with the share done, in [0, 1].

    Returns:
        The Markdown page.

    Raises:
        DataError: fewer than two speakers have enough recordings, or one cannot be used.
        VqcodecError: a library is missing.
    """
    for name in ("sklearn", "pyworld", "librosa"):  # missed now rather than after the work
        library(name)
    train, test = _chosen(corpus, min_clips, max_clips)
    heard = []
    for n_done, utterance in enumerate(train + test, 1):
        heard.append(_listen(codec, utterance))
        if on_progress:
            on_progress(n_done / len(train + test))
    first, second = heard[: len(train)], heard[len(train) :]
    probed = [*_speaker_probes(first, second), *_pitch_probes(first, second)]
    to_decode = spread(second, MAX_DECODED)
    decoded = [(clip.utterance, clip.codes) for clip in to_decode]
    distances, misheard = measure_reliance(codec, decoded, recognizer)
    table = [_decoded_cells(one, len(to_decode)) for one in distances]
    for row, one in zip(table, misheard, strict=False):
        row["WER (%) ↓"] = cell(one.found, 1)
    text = (
        f"Model {codec.name} ({codec.fingerprint.hex()}); {len(train)} training and {len(test)} "
        f"test recordings of {len({each.speaker for each in test})} speakers.\n\n"
        f"{markdown_table([_cells(one) for one in probed])}\n"
        f"{markdown_table(table)}\n"
        f"{_NOTES}\n\n{TRAINED_ON_NOTE}\n"
    )
    if recognizer is not None:
        text += f"\n{recognizer.about()}\n"
    rows = [one.row() for one in [*probed, *distances, *misheard]]
    write_report(output, "leakage", rows, text)
    return text


def _chosen(
    corpus: Path, min_clips: int, max_clips: int
) -> tuple[list[Utterance], list[Utterance]]:
    """Recordings to fit to and to score on, of the same speakers."""
    splits = clips(corpus, "train"), clips(corpus, "test")
    counts = [Counter(utterance.speaker for utterance in split) for split in splits]
    names = sorted(name for name in counts[0] if min(c[name] for c in counts) >= min_clips)
    if len(names) < 2:
        raise DataError(
            f"{corpus}: {len(names)} speakers have {min_clips} recordings or more in train and in "
            "test; a probe needs two such speakers"
        )
    train, test = (
        [
            utterance
            for name in names
            for utterance in spread([u for u in split if u.speaker == name], max_clips)
        ]
        for split in splits
    )
    return train, test


def _listen(codec: Codec, utterance: Utterance) -> _Recording:
    """Encode a recording, and analyse it at the times that the codes stand for."""
    rate, hop_length = codec.sample_rate, codec.hop_length
    own = None if codec.hears_speakers else utterance.speaker
    recording = open_recording(utterance.path)
    codes = codec.encode(recording, speaker=own)
    indices = torch.from_numpy(codes.codes.astype(np.int64))[None].to(codec.device)
    waveform = load(recording, rate) / np.float32(codes.gain)
    # The frames of both analyses are centred on multiples of the hop, and codes between them.
    room = max(codes.n_codes * hop_length, _N_FFT) + hop_length // 2 - len(waveform)
    shifted = np.pad(waveform, (0, room))[hop_length // 2 :]
    feature = library("librosa").feature
    mfccs = feature.mfcc(y=shifted, sr=rate, n_mfcc=_N_MFCC, n_fft=_N_FFT, hop_length=hop_length)
    deltas = feature.delta(mfccs, mode="nearest")
    f0 = track_pitch(shifted, rate, hop_ms=1000 * hop_length / rate).f0[: codes.n_codes]
    frames = {
        VECTORS: codec.model.latents(indices)[0].T.cpu().numpy(),
        MFCCS: np.concatenate([mfccs, deltas]).T[: codes.n_codes],
    }
    return _Recording(utterance, codes, frames, np.log(np.where(f0 > 0, f0, np.nan)))


# Who speaks


def _speaker_probes(train: Sequence[_Recording], test: Sequence[_Recording]) -> list[Measurement]:
    found = []
    for target, window_s in (("speaker, recording", None), ("speaker, 1 s", _WINDOW_S)):
        first, second = (_pieces(split, window_s) for split in (train, test))
        if len({piece.speaker for piece in first}) < 2 or not second:
            raise DataError(
                f"too few recordings are of {_WINDOW_S:g} s or more: a probe needs those of two "
                "speakers in train, and one in test"
            )
        names = Counter(piece.speaker for piece in second)
        chance = max(names.values()) / len(second)
        for given in (HISTOGRAM, VECTORS, MFCCS):
            probe = library("sklearn.linear_model").LogisticRegression(max_iter=_MAX_ITERATIONS)
            fitted, scored = (
                (
                    np.stack([piece.statistics[given] for piece in part]),
                    [piece.speaker for piece in part],
                )
                for part in (first, second)
            )
            is_right = _fit(probe, fitted).predict(scored[0]) == np.array(scored[1])
            _, recordings = np.unique([piece.recording for piece in second], return_inverse=True)
            accuracy = ratio(np.bincount(recordings, is_right), np.bincount(recordings))
            found.append(
                Measurement(target, given, "accuracy", accuracy, len(second), chance, len(first))
            )
    return found


class _Piece(NamedTuple):
    """What a probe of the speaker is given of a recording, which has a number."""

    recording: int
    speaker: str
    statistics: dict[str, np.ndarray]


def _pieces(split: Sequence[_Recording], window_s: float | None) -> list[_Piece]:
    """All recordings, or every whole window of them."""
    found = []
    for number, clip in enumerate(split):
        n_codes = clip.codes.n_codes
        frame_rate = clip.codes.sample_rate / clip.codes.hop_length
        length = round(window_s * frame_rate) if window_s else n_codes
        for start in range(0, n_codes - length + 1, length):
            part = slice(start, start + length)
            found.append(_Piece(number, clip.utterance.speaker, _statistics(clip, part)))
    return found


def _statistics(clip: _Recording, part: slice) -> dict[str, np.ndarray]:
    """What the probes of the speaker are given, by name."""
    size = clip.codes.codebook_size
    counts = [np.bincount(row, minlength=size) for row in clip.codes.codes[:, part]]
    found = {HISTOGRAM: np.concatenate(counts) / (part.stop - part.start)}
    for name, frames in clip.frames.items():
        found[name] = np.concatenate([frames[part].mean(axis=0), frames[part].std(axis=0)])
    return found


# The pitch


def _pitch_probes(train: Sequence[_Recording], test: Sequence[_Recording]) -> list[Measurement]:
    means = _mean_log_f0(train)
    found = []
    for target, offsets in (
        ("log F0", dict.fromkeys(means, 0.0)),
        ("log F0 about the speaker's mean", means),
    ):
        for given in (VECTORS, MFCCS):
            first, second = (_voiced(split, given, offsets) for split in (train, test))
            inputs, targets, recordings = second
            missed = _fit(library("sklearn.linear_model").Ridge(), first[:2]).predict(inputs)
            missed -= targets
            varied, unexplained = (
                np.bincount(recordings, np.square(each))
                for each in (targets - targets.mean(), missed)
            )
            share = ratio(varied - unexplained, varied)
            n_train = len(first[1])
            found.append(Measurement(target, given, "R²", share, len(targets), 0.0, n_train))
    return found


def _mean_log_f0(split: Sequence[_Recording]) -> dict[str, float]:
    """Speaker -> mean over all voiced frames; those without any are left out."""
    of_speaker: dict[str, list[np.ndarray]] = {}
    for clip in split:
        voiced = clip.log_f0[np.isfinite(clip.log_f0)]
        if len(voiced):
            of_speaker.setdefault(clip.utterance.speaker, []).append(voiced)
    return {name: float(np.concatenate(own).mean()) for name, own in of_speaker.items()}


def _voiced(
    split: Sequence[_Recording], given: str, offsets: dict[str, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames with their neighbours (M, (2 * context + 1) * D), and log F0 less an offset (M,).

    Of the speakers that have an offset; and the number of the recording of each (M,).
    """
    known = [clip for clip in split if clip.utterance.speaker in offsets]
    known = [clip for clip in known if np.isfinite(clip.log_f0).any()]
    n_voiced = sum(int(np.isfinite(clip.log_f0).sum()) for clip in known)
    if not n_voiced:
        raise DataError(
            f"split {split[0].utterance.split}: no voiced speech is found in its recordings; "
            "give recordings of speech"
        )
    step = -(-n_voiced // _MAX_FRAMES)
    inputs, targets, recordings = [], [], []
    for number, clip in enumerate(known):
        rows = np.flatnonzero(np.isfinite(clip.log_f0))[::step]
        padded = np.pad(clip.frames[given], ((_CONTEXT, _CONTEXT), (0, 0)), mode="edge")
        seen = rows[:, None] + np.arange(2 * _CONTEXT + 1)
        inputs.append(padded[seen].reshape(len(rows), -1))
        targets.append(clip.log_f0[rows] - offsets[clip.utterance.speaker])
        recordings.append(np.full(len(rows), number))
    # Latents lie in a space of fewer dimensions: in single precision that is ill-conditioned.
    samples = np.concatenate(inputs, dtype=np.float64)
    return samples, np.concatenate(targets), np.concatenate(recordings)


# Probes


def _fit(probe: Any, train: _Labelled) -> Any:
    """A probe that has learnt what is to be told of inputs, which it standardises."""
    scaler = library("sklearn.preprocessing").StandardScaler()
    return library("sklearn.pipeline").make_pipeline(scaler, probe).fit(*train)


# The page


def _cells(one: Measurement) -> dict[str, str]:
    return {
        "told": one.target,
        "from": one.given,
        "measure": one.measure,
        "value": cell(one.found, 3),
        "chance": f"{one.chance:.3f}",
        "fitted to": str(one.n_train),
        "scored on": str(one.n_test),
    }


def _decoded_cells(one: Measurement, n_files: int) -> dict[str, str]:
    assert one.more is not None
    return {
        "decoded from": one.given,
        heading("mel distance"): cell(one.found, 3),
        "more than the right ones": cell(one.more, 3),
        "files": str(one.n_test) if one.n_test == n_files else f"{one.n_test} of {n_files}",
    }
