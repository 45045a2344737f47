"""What is trained on, and how it is perturbed and augmented: sections of recipes."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from vqcodec.models.config import Count, Positive, Probability, Section, Weight

Frequency = Annotated[float, Field(gt=20, lt=2000)]
ReverberationTime = Annotated[float, Field(ge=0.01, le=10)]


class PoolConfig(Section):
    """How a source of any size is read, which was not prepared.

    Attributes:
        root: a folder that `vqcodec prepare` made, or a source as of `vqcodec encode-dataset`.
        pool_parts: parts of such a source (archives, row groups, or 200 files) in memory at a time.
        pool_steps: optimiser steps that are drawn from them before the next ones are.
    """

    root: str = "data/prepared"
    pool_parts: Positive = 8
    pool_steps: Positive = 500


class DataConfig(PoolConfig):
    """What is trained on.

    Attributes:
        batch_size: segments of one optimiser step, over all processes.
        segment_length: codes in a segment.
        reference_s: seconds of the speaker encoder's reference clip.
        codes: a folder of code files of the recordings, such as `vqcodec encode CORPUS FOLDER
            --refine` writes, for stages that freeze codes: half of the segments are decoded from
            what it has for them, the others from what the encoder makes.
        workers: processes that make batches ahead, per training process; with 0 it makes its own.
            Of a source that was not prepared, threads that read recordings.
        resident: keep the audio in the device's memory and make batches there; by default on a
            GPU, if it takes a quarter of the free memory at most.
    """

    batch_size: Positive = 8
    segment_length: Positive = 64
    reference_s: Annotated[float, Field(ge=0.1)] = 2.0
    codes: str | None = None
    workers: Count = 0
    resident: bool | None = None


class PerturbationConfig(Section):
    """How the encoder's input is perturbed, so that codes cannot hold the speaker.

    Attributes:
        probability: of perturbing a segment.
        pitch_semitones: largest shift of pitch, up or down.
        formant_ratio: largest stretch of the spectral envelope, up or down (1 = none).
        conversion: probability of saying a segment in another speaker's voice instead, as the
            model itself then would, for stages that freeze codes: the decoder learns to give a
            voice to what another has said (back-translation, Sennrich et al. 2016, arXiv
            1511.06709). Validation does not see what it improves: the newest model is kept.
        mean_hz: range of the mean pitch that a segment is given instead of a shift, for models with
            a pitch stream: a shift takes low voices lower and high ones higher, where words are
            lost.
        contour_scale: range of what the melody of a segment is multiplied by, with such a stream:
            1 keeps it, 0 is monotone.
        drift_semitones: root mean square of a slow random melody that is added, with such a stream.
        equalizer_db: root mean square of a smooth random colour.
        past_noise: standard deviation at most, in levels, of what is added to the samples that the
            WaveNet is told it has made: it learns not to run after its own errors. Above 1,
            that of a segment lies between 1 and it, evenly in the logarithm.
        past_softer: probability of telling it that it has been softer in a segment, by up to 40 dB:
            it learns to be as loud as the codes say. Else silence goes on forever.
        stream_dropout: probability of not telling decoders the streams of a segment, perturbed or
            not: they are to decode codes that come without, too.
    """

    probability: Probability = 0.0
    pitch_semitones: Weight = 4.0
    formant_ratio: Annotated[float, Field(ge=1, le=2)] = 1.15
    conversion: Probability = 0.0
    mean_hz: tuple[Frequency, Frequency] | None = None
    contour_scale: tuple[float, float] = (1.0, 1.0)
    drift_semitones: Weight = 0.0
    equalizer_db: Weight = 0.0
    past_noise: Weight = 0.0
    past_softer: Probability = 0.0
    stream_dropout: Probability = 0.12


class AugmentationConfig(Section):
    """Where the encoders hear a segment from (data/augmentation.py), while its target stays clean.

    Attributes:
        probability: of a segment, and of the speaker's reference; not of those that have codes.
        snr_db: range of how far noise or other talkers are below speech.
        reverberation_s: range of the times in which a room's sound falls by 60 dB.
    """

    probability: Probability = 0.0
    snr_db: tuple[float, float] = (5.0, 30.0)
    reverberation_s: tuple[ReverberationTime, ReverberationTime] = (0.15, 0.9)
