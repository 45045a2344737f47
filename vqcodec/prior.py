"""Priors in use: new speech sampled as codes, and how unlikely the codes of a recording are."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from vqcodec.codec import Codec
from vqcodec.errors import CheckpointError, VqcodecError
from vqcodec.extras import library
from vqcodec.format.codes import Codes
from vqcodec.inference import chunking
from vqcodec.inference.encoding import Progress
from vqcodec.inference.sources import Source
from vqcodec.models.speaker_vector import from_int8
from vqcodec.weights.voices import Speaker

if TYPE_CHECKING:
    from vqcodec.models.code_transformer import CodeTransformer

Scheme = Literal["prior", "histogram", "uniform"]

BINS_PER_BIT, N_BINS = 16, 512


class Score(NamedTuple):
    """How a recording looks to a prior.

    Attributes:
        bits_per_code: mean information of its codes. Monotonous sounds, such as hum or steady
            noise, have less than speech, and chaotic ones more.
        anomaly: largest difference between its distribution of bits over codes and that of speech,
            each accumulated from 0 to 1 (the statistic of Kolmogorov and Smirnov), in [0, 1]. A
            test of typicality (Nalisnick et al. 2019, arXiv 1906.02994): speech is neither more
            nor less predictable than usual.
    """

    bits_per_code: float
    anomaly: float


CODES_AT_A_TIME = 25  # that are drawn between looks at whether that is still wanted


class Prior:
    """What is known of the code sequences of one codec.

    Args:
        model: the transformer, in evaluation mode.
        histogram: (K,) int64 how often the training data has each code.
        typical: (512,) int64 of `binned`, of speech that the prior was not trained on.
        codec: whose codes these are.
        provenance: how the prior was trained.
    """

    def __init__(
        self,
        model: CodeTransformer,
        histogram: np.ndarray,
        typical: np.ndarray,
        codec: Codec,
        provenance: dict[str, Any],
    ) -> None:
        self.model, self.codec = model.to(codec.device), codec
        self.histogram, self.typical, self.provenance = histogram, typical, provenance

    def sample(
        self,
        seconds: float,
        *,
        speaker: Speaker | Source,
        scheme: Scheme = "prior",
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        prompt: Codes | None = None,
        on_progress: Progress | None = None,
    ) -> Codes:
        """Draw codes, which `Codec.decode` makes audible.

        Args:
            seconds: of new speech, rounded up to whole codes.
            speaker: who speaks, as in `Codec.speaker`.
            scheme: `prior` draws every code given those before it; `histogram` draws each as often
                as the training data has it; `uniform` draws all equally often.
            temperature: of the draws; 0 takes the likeliest code.
            top_k: draw among so many of the likeliest codes; among all when None.
            top_p: draw among the likeliest codes that make up this probability, in (0, 1].
            seed: of the draws; the same seed gives the same codes.
            prompt: codes of this codec, which the new ones continue and follow in the result.
            on_progress: called with the share done, in [0, 1].

        Raises:
            VqcodecError: an argument is out of its range.
            CodesError: the prompt belongs to another model.
            SpeakerError, AudioError: see `Codec.speaker`.
        """
        codec = self.codec
        voice = codec.speaker(speaker)
        if prompt is not None:
            codec.check(prompt)
        is_finite = 0 < seconds < math.inf and 0 <= temperature < math.inf
        if not is_finite or not 0 < top_p <= 1 or (top_k is not None and top_k < 1) or seed < 0:
            raise VqcodecError(
                f"seconds {seconds}, temperature {temperature}, top_k {top_k}, top_p {top_p}, "
                f"seed {seed}: seconds must be positive, temperature and seed at least 0, top_k at "
                "least 1 and top_p in (0, 1]"
            )
        n_new = -int(-seconds * codec.sample_rate // codec.hop_length)
        codes = [] if prompt is None else prompt.codes[0].tolist()

        predict = self._predictor(scheme, voice)
        rng, length = np.random.default_rng(seed), self.model.config.context
        unheard = [self.model.begin, *codes]
        n_given = len(codes)

        def generate(n_wanted: int) -> None:
            """Hear what is new, and draw so many codes."""
            for _ in range(n_wanted):
                for start in range(0, len(unheard), length):
                    logits = predict(unheard[start : start + length])
                codes.append(_drawn(logits, rng, temperature, top_k, top_p))
                unheard[:] = codes[-1:]

        # On a lone thread the codes do not depend on how many the machine has. Few at a time, and
        # one after another, so that an interrupt finds an end.
        pieces = [min(CODES_AT_A_TIME, n_new - n) for n in range(0, n_new, CODES_AT_A_TIME)]
        for _ in chunking.map_in_order(generate, pieces, codec.engine.n_threads, live=True):
            if on_progress:
                on_progress((len(codes) - n_given) / n_new)
        return Codes(
            np.array(codes)[None],
            codebook_size=self.model.codebook_size,
            sample_rate=codec.sample_rate,
            hop_length=codec.hop_length,
            fingerprint=codec.fingerprint,
            original_sample_rate=codec.sample_rate,
            n_samples=len(codes) * codec.hop_length,
            gain=1.0 if prompt is None else prompt.gain,
            speaker=voice.vector,
        )

    def score(self, codes: Codes) -> Score:
        """How unlike speech a recording is; arguments and errors are those of `bits`."""
        bits = self.bits(codes)
        own, typical = (np.cumsum(bins) / bins.sum() for bins in (binned(bits), self.typical))
        return Score(float(bits.mean()), float(np.abs(own - typical).max()))

    def bits(self, codes: Codes) -> np.ndarray:
        """Information of every code.

        Args:
            codes: of this codec.

        Returns:
            (N,) float32: -log2 of the probability of each code, given those before it and the
            speaker that the codes carry or name.

        Raises:
            CodesError: the codes belong to another model.
            SpeakerError: they name a voice that is unknown.
        """
        import torch

        self.codec.check(codes)
        speaker = codes.speaker
        if isinstance(speaker, str):
            if speaker not in self.codec.voices:
                raise self.codec.unknown_voice(speaker)
            speaker = self.codec.voices[speaker].vector
        sequence = torch.from_numpy(codes.codes[0].astype(np.int64)).to(self.codec.device)
        vector = torch.from_numpy(from_int8(speaker)).to(self.codec.device)
        (found,) = chunking.map_in_order(
            lambda sequence: self.model.bits(sequence, vector),
            [sequence],
            self.codec.engine.n_threads,
        )
        bits: np.ndarray = found.cpu().numpy()
        return bits

    def _predictor(self, scheme: Scheme, speaker: Speaker) -> Callable[[list[int]], np.ndarray]:
        """A function of the codes that follow (K codes at first); returns logits of the next."""
        if scheme == "prior":
            import torch

            vector = torch.from_numpy(from_int8(speaker.vector))[None].to(self.codec.device)
            cache = self.model.cache()

            @torch.no_grad()
            def predict(codes: list[int]) -> np.ndarray:
                previous = torch.tensor([codes], device=self.codec.device)
                logits: np.ndarray = self.model(previous, vector, cache)[0, -1].cpu().numpy()
                return logits

            return predict
        with np.errstate(divide="ignore"):
            fixed = np.log(
                self.histogram if scheme == "histogram" else np.ones(len(self.histogram))
            )
        return lambda codes: fixed


def binned(bits: np.ndarray) -> np.ndarray:
    """Count codes (512,) int64 of 0 to 1/16 bit, 1/16 to 2/16, ...; the last, 32 and more."""
    bins = np.minimum(bits * BINS_PER_BIT, N_BINS - 1).astype(np.int64)
    return np.bincount(bins, minlength=N_BINS)


def load(codec: Codec, path: str | os.PathLike[str] | None = None) -> Prior:
    """Load the prior of a codec.

    Args:
        codec: whose codes it shall know; the prior works on its device.
        path: a prior file; the packaged one of the codec when None.

    Raises:
        CheckpointError: there is none, or it is damaged, too new or of another codec.
        VqcodecError: torch is not installed.
    """
    library("torch")  # says which extra is missing, if one is
    from vqcodec.weights.prior_checkpoint import packaged, read

    own = codec.fingerprint.hex()
    path = packaged().get(own) if path is None else Path(path)
    if path is None:
        raise CheckpointError(
            f"{codec.name}: no prior is packaged for this model ({own}): train one "
            "(vqcodec train prior.yaml) and name its file (--prior)"
        )
    model, histogram, typical, provenance, fingerprint = read(path)
    if fingerprint != own:
        raise CheckpointError(
            f"{path}: knows the codes of model {fingerprint}, and {codec.name} is "
            f"{own}: give the prior that was trained on {codec.name}"
        )
    return Prior(model, histogram, typical, codec, provenance)


def _drawn(
    logits: np.ndarray,
    rng: np.random.Generator,
    temperature: float,
    top_k: int | None,
    top_p: float,
) -> int:
    """A code from logits (K,), of which -inf is never drawn."""
    if temperature == 0:
        return int(logits.argmax())
    weights = np.exp((logits - logits.max()).astype(np.float64) / temperature)
    likeliest = np.argsort(-weights, kind="stable")[:top_k]
    cumulative = np.cumsum(weights[likeliest])
    n_kept = np.searchsorted(cumulative, top_p * cumulative[-1]) + 1
    drawn = np.searchsorted(cumulative[:n_kept], rng.random() * cumulative[n_kept - 1], "right")
    return int(likeliest[min(drawn, n_kept - 1)])
