"""How close a decoded recording is to its original, by the measures of the field.

Waveforms are float arrays of shape (T,), full scale 1, at `SAMPLE_RATE`. The two of a pair have
one length and no delay between them: see `alignment.align`. Every measure needs the extra `eval`,
and raises `UndefinedMetricError` where it has no value, such as for silence or for less than 64 ms,
which is the longest window.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vqcodec.audio import open_recording
from vqcodec.errors import VqcodecError
from vqcodec.extras import library

SAMPLE_RATE = 16000
MIN_VOICED_FRAMES = 10
ROUNDING_NOISE = 2**-30 / 12  # variance, of 16-bit samples

_LONGEST_WINDOW = 1024  # of `mel_distance`
_N_MEL_CEPSTRUM = 24
_SILENCE = 2**-16  # peak: what 16-bit samples round to 0
_DYNAMIC_RANGE_DB = 40  # of `mel_cepstral_distortion`, as STOI has it


class UndefinedMetricError(VqcodecError):
    """A measure has no value for a pair; the message is the reason."""


class Measured(NamedTuple):
    """Measures of one recording by name, None where undefined, and the reasons for these."""

    values: dict[str, Any]
    reasons: dict[str, str]

    @property
    def undefined(self) -> str:
        """All reasons in one line."""
        return "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())


def stoi(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Short-time objective intelligibility of 0.4 s or more of sound, up to 1; higher is better.

    Source: Taal, Hendriks, Heusdens, Jensen 2011, IEEE Trans. ASLP 19(7), as in pystoi.
    """
    return _stoi(reference, decoded, extended=False)


def estoi(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Extended STOI, which also hears modulated distortion; otherwise as `stoi`.

    Source: Jensen, Taal 2016, IEEE/ACM Trans. ASLP 24(11), as in pystoi.
    """
    return _stoi(reference, decoded, extended=True)


def pesq_wb(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Wide-band perceptual evaluation of speech quality, 1.04 to 4.64; higher is better.

    Source: ITU-T P.862.2 (mapped to a mean opinion score), as in the package pesq, which needs 0.25
    s and finds no utterance in some noise.
    """
    pesq = library("pesq")
    check_pair(reference, decoded)
    try:
        return float(pesq.pesq(SAMPLE_RATE, reference, decoded, "wb"))
    except (pesq.PesqError, ValueError) as error:
        reason = error.args[0]
        text = reason.decode() if isinstance(reason, bytes) else str(reason)
        raise UndefinedMetricError(text) from error


def mel_distance(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Mean absolute difference of log-mel spectrograms in nepers, from 0; lower is better.

    80 mel bands of magnitudes in windows of 64 ms every 16 ms, natural logarithm, floor 1e-5: the
    spectrogram of Kong, Kim, Bae 2020 (HiFi-GAN, arXiv 2010.05646), section 2.3, at 16 kHz.
    """
    check_pair(reference, decoded)
    feature = library("librosa").feature

    def log_mel(waveform: np.ndarray) -> np.ndarray:
        layout = {"n_fft": _LONGEST_WINDOW, "hop_length": 256, "n_mels": 80}
        mel = feature.melspectrogram(y=waveform, sr=SAMPLE_RATE, power=1, **layout)
        return np.log(np.maximum(mel, 1e-5))

    return float(np.abs(log_mel(reference) - log_mel(decoded)).mean())


def mel_cepstral_distortion(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Mean distance of mel cepstra c1 to c24 in dB, from 0; lower is better.

    10 / ln 10 · sqrt(2 Σ (difference)²), frame by frame on the aligned audio, over the frames less
    than 40 dB below the original's loudest, for without c0 the noise of pauses would count like
    speech. The cepstra are those of spectral envelopes by CheapTrick every 5 ms (Morise 2015), as
    in pyworld, not below the rounding noise of 16-bit samples. A narrow band costs much.

    Source: Kubichek 1993, Mel-cepstral distance measure for objective speech quality assessment,
    IEEE Pacific Rim Conference.
    """
    check_pair(reference, decoded)
    level = library("librosa").feature.rms(y=reference, frame_length=400, hop_length=80)[0]
    is_loud = level > 10 ** (-_DYNAMIC_RANGE_DB / 20) * level.max()
    difference = (_mel_cepstra(reference) - _mel_cepstra(decoded))[is_loud, 1:]
    # WORLD's coefficients of the log power are those of the log amplitude times sqrt(2).
    return float(10 / np.log(10) * np.sqrt((difference**2).sum(axis=1)).mean())


def f0_correlation(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Pearson correlation of log F0 where both are voiced, -1 to 1; higher is better.

    It takes ten such frames. F0 every 5 ms by DIO and StoneMask (Morise, Yokomori, Ozawa 2016,
    WORLD), as in pyworld.
    """
    first, second = _voiced_log_f0(reference, decoded)
    if not (first.std() and second.std()):
        raise UndefinedMetricError("the pitch never moves")
    return float(np.corrcoef(first, second)[0, 1])


def voicing_error(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Share of 5 ms frames voiced in one and unvoiced in the other, 0 to 1; lower is better."""
    check_pair(reference, decoded)
    first, second = track_pitch(reference).f0, track_pitch(decoded).f0
    return float(((first > 0) != (second > 0)).mean())


def f0_error(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Median distance of F0 where both are voiced, in cents, from 0; lower is better.

    A semitone is 100 cents. The correlation does not hear a voice that is higher throughout; the
    median does not hear octaves by which the tracker slips.
    """
    first, second = _voiced_log_f0(reference, decoded)
    return float(1200 / np.log(2) * np.median(np.abs(first - second)))


def dnsmos(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Overall opinion score that a network predicts, about 1 to 5; higher is better.

    A check for gross faults, not a measure of quality: it hears noise and is blind to naturalness,
    and scores a formant synthesiser like a person. The reference is not listened to. All is heard
    at one level of speech, for 20 dB less cost half a point.

    Source: Reddy, Gopal, Cutler 2022, DNSMOS P.835, ICASSP, as in speechmos (`ovrl_mos`).
    """
    check_pair(reference, decoded)
    levelled = np.clip(decoded / _gain(decoded), -1, 1)
    found = _dnsmos()(levelled, SAMPLE_RATE, is_personalized_MOS=False)
    return float(found["ovrl_mos"])


def speaker_similarity(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Cosine of the two `speaker_embedding`s, 0 to 1; higher is more alike."""
    check_pair(reference, decoded)
    return float(speaker_embedding(reference) @ speaker_embedding(decoded))


def speaker_embedding(waveform: np.ndarray) -> np.ndarray:
    """Who speaks, (256,) of length 1 without negative values; undefined without a voice.

    Source: Wan, Wang, Papir, Moreno 2018 (GE2E, arXiv 1710.10467), as trained in resemblyzer.
    """
    encoder = _voice_encoder()
    if not len(waveform) or np.ptp(waveform) < 2 * _SILENCE:
        raise UndefinedMetricError("silence has no speaker")
    # The encoder hears the level, too; the voice detector, of 16-bit samples, would let them wrap.
    levelled = np.clip(waveform / np.float32(_gain(waveform)), -1, 1)
    voiced = library("resemblyzer").preprocess_wav(levelled)
    if not len(voiced):
        raise UndefinedMetricError("no voice is found")
    embedding: np.ndarray = encoder.embed_utterance(voiced)
    return embedding


@dataclass(frozen=True)
class Metric:
    """A measure as reports show it.

    Attributes:
        name: the column's.
        higher_is_better: else lower is.
        function: (reference, decoded) -> value; raises `UndefinedMetricError`.
        is_trained_on: whether a loss of training, or of the search of `Codec.encode`, is of its
            kind, which makes it no impartial judge.
        is_of_level: whether it would hear how loud a codec is: `measure` gives it what was decoded
            at the original's level.
    """

    name: str
    higher_is_better: bool
    function: Callable[[np.ndarray, np.ndarray], float]
    is_trained_on: bool = False
    is_of_level: bool = False


METRICS = (
    Metric("speaker similarity", True, speaker_similarity),
    Metric("F0 correlation", True, f0_correlation, is_trained_on=True),
    Metric("F0 error (cents)", False, f0_error, is_trained_on=True),
    Metric("voicing error", False, voicing_error, is_trained_on=True),
    Metric("STOI", True, stoi, is_trained_on=True),
    Metric("ESTOI", True, estoi),
    Metric("PESQ-WB", True, pesq_wb),
    Metric("mel distance", False, mel_distance, is_trained_on=True, is_of_level=True),
    Metric("MCD (dB)", False, mel_cepstral_distortion, is_of_level=True),
    Metric("DNSMOS", True, dnsmos),
)


def measure_each(measures: Mapping[str, Callable[[], Any]]) -> Measured:
    """What each measure says, or why it is undefined."""
    found = Measured({}, {})
    for name, measure in measures.items():
        try:
            found.values[name] = measure()
            if isinstance(found.values[name], float) and not np.isfinite(found.values[name]):
                raise UndefinedMetricError("no finite number comes out")
        except UndefinedMetricError as error:
            found.values[name], found.reasons[name] = None, str(error)
    return found


def measure(reference: np.ndarray, decoded: np.ndarray) -> Measured:
    """All of `METRICS` for an aligned pair, (T,) each."""
    forms = {False: decoded, True: decoded * np.float32(_gain(reference) / _gain(decoded))}
    return measure_each(
        {each.name: partial(each.function, reference, forms[each.is_of_level]) for each in METRICS}
    )


def _stoi(reference: np.ndarray, decoded: np.ndarray, *, extended: bool) -> float:
    pystoi = library("pystoi")
    check_pair(reference, decoded)
    fault = UndefinedMetricError("less than 0.4 s of sound")
    if len(reference) < 0.4 * SAMPLE_RATE:  # of which pystoi fails where it is not a frame
        raise fault
    with warnings.catch_warnings(), _repeatable_draws():
        # pystoi says so, and returns 1e-5, where too little is left without the silence.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(reference, decoded, SAMPLE_RATE, extended=extended))
        except RuntimeWarning as warning:
            raise fault from warning


@contextmanager
def _repeatable_draws() -> Iterator[None]:
    """NumPy's global generator as if just seeded, and afterwards as it was before.

    pystoi draws noise from it that decides ESTOI where a band is silent.
    """
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _voiced_log_f0(reference: np.ndarray, decoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log F0 of the frames that are voiced in both, in nepers: (n,) and (n,)."""
    check_pair(reference, decoded)
    first, second = track_pitch(reference).f0, track_pitch(decoded).f0
    both = (first > 0) & (second > 0)
    if both.sum() < MIN_VOICED_FRAMES:
        raise UndefinedMetricError(f"fewer than {MIN_VOICED_FRAMES} frames are voiced in both")
    return np.log(first[both]), np.log(second[both])


class Pitch(NamedTuple):
    """F0 as WORLD finds it (DIO and StoneMask; Morise, Yokomori, Ozawa 2016).

    Attributes:
        f0: (frames,) in Hz, 0 where unvoiced.
        times: (frames,) in seconds.
    """

    f0: np.ndarray
    times: np.ndarray


def track_pitch(
    waveform: np.ndarray, sample_rate: int = SAMPLE_RATE, *, hop_ms: float = 5.0
) -> Pitch:
    """The pitch of a waveform (T,) every `hop_ms` milliseconds."""
    pyworld = library("pyworld")
    samples = waveform.astype(np.float64)
    coarse, times = pyworld.dio(samples, sample_rate, frame_period=hop_ms)
    return Pitch(pyworld.stonemask(samples, coarse, times, sample_rate), times)


def _mel_cepstra(waveform: np.ndarray) -> np.ndarray:
    """WORLD's mel cepstrum of the log power, with c0: (frames, 25)."""
    pyworld = library("pyworld")
    samples = waveform.astype(np.float64)
    envelopes = pyworld.cheaptrick(samples, *track_pitch(waveform), SAMPLE_RATE)
    # Else the depth of a resampler's stop band would count.
    audible = np.maximum(envelopes, ROUNDING_NOISE)
    cepstra: np.ndarray = pyworld.code_spectral_envelope(audible, SAMPLE_RATE, _N_MEL_CEPSTRUM + 1)
    return cepstra


def check_pair(reference: np.ndarray, decoded: np.ndarray) -> None:
    """Raise `UndefinedMetricError` of silence or what is short, `VqcodecError` of two lengths."""
    if reference.ndim != 1 or reference.shape != decoded.shape:
        raise VqcodecError(
            f"waveforms of shapes {reference.shape} and {decoded.shape} cannot be compared; "
            "align the decoded one first"
        )
    if len(reference) < _LONGEST_WINDOW:
        raise UndefinedMetricError(f"less than {1000 * _LONGEST_WINDOW // SAMPLE_RATE} ms")
    for name, waveform in (("original", reference), ("decoded recording", decoded)):
        # A constant, too: what a measure of it would say is chance.
        if np.ptp(waveform) < 2 * _SILENCE:
            raise UndefinedMetricError(f"the {name} is silent")


def _gain(waveform: np.ndarray) -> float:
    return open_recording((SAMPLE_RATE, waveform)).gain()


@cache
def _voice_encoder() -> Any:
    return library("resemblyzer").VoiceEncoder("cpu", verbose=False)


@cache
def _dnsmos() -> Any:
    module, onnxruntime = library("speechmos.dnsmos"), library("onnxruntime")
    folder = Path(module.__file__).parent / "dnsmos_models"
    paths = str(folder / "sig_bak_ovr.onnx"), str(folder / "model_v8.onnx")
    judge = module.DNSMOS(*paths)
    # Its own sessions would each take every core, in every process.
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    judge.onnx_sess, judge.p808_onnx_sess = (
        onnxruntime.InferenceSession(path, options) for path in paths
    )
    return judge
