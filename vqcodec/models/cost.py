"""What a model costs: parameters, multiply-accumulates and look-ahead, of each of its parts.

All is told from the configuration and the shapes of the weights, without torch and without running
anything: a weight is multiplied once for every output of its layer. Inverse and forward Fourier
transforms, normalisation and activations are left out, some percent of the whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vqcodec.models.config import EncoderConfig, ModelConfig, WaveNetConfig
from vqcodec.models.receptive_field import condition_context, encoder_context, istft_reach

Shapes = Mapping[str, Sequence[int]]

# State that is not learnt, the scales of rounded weights, and what lies beside a model in its file.
_NO_WEIGHT = re.compile(
    r"(entropy\.|graphs\.|norm\.|speaker\.mel\.|voices$).*|.*(cluster_size|cluster_sum|embed_avg|init\w*ed|\.scale8)"
)
_MEL_SHAPE = 257, 64  # bins and bands of what the speaker encoder hears, one frame in 10 ms


class Cost(NamedTuple):
    """What a part costs.

    Attributes:
        parameters: that are learnt.
        macs_per_second: multiply-accumulates for a second of audio, two operations (FLOP) each;
            of the speaker encoder, for a second that it listens to.
        look_ahead_ms: of audio after its own, beyond the hop of a code, that an output waits for;
            None where that is no fixed time.
    """

    parameters: int
    macs_per_second: float
    look_ahead_ms: float | None


def part_costs(config: ModelConfig, shapes: Shapes) -> dict[str, Cost]:
    """The cost of `encoder`, `quantizer`, `speaker`, `fast`, `wavenet` and what else has weights.

    The shapes are those of the weights by their names in a model file.
    """
    weights = {name: shape for name, shape in shapes.items() if not _NO_WEIGHT.fullmatch(name)}
    multiplied = {name: shape for name, shape in weights.items() if len(shape) > 1}
    if config.speaker.kind == "encoder":
        multiplied["speaker.mel"] = _MEL_SHAPE  # which is stored in no file
    if config.quantizer.kind == "vq":  # beside each code stands half of its square
        size, dim = multiplied["quantizer.codebook"]
        multiplied["quantizer.codebook"] = [size, dim + 1]
    rates = _rates(config)
    waits = _look_ahead(config, weights)
    return {
        part: Cost(
            sum(math.prod(shape) for name, shape in weights.items() if _part(name) == part),
            sum(
                math.prod(shape) * _rate(name, rates, config)
                for name, shape in multiplied.items()
                if _part(name) == part
            ),
            1000 * waits[part] / config.sample_rate if part in waits else None,
        )
        for part in dict.fromkeys(map(_part, weights))
    }


def latency_ms(config: ModelConfig, costs: Mapping[str, Cost]) -> dict[str, float | None]:
    """The algorithmic latency of each decoder: a code's hop, and all look-ahead before and after.

    What `stream_encode` and `stream_decode` add are the codes that they take at a time.
    """
    before = 1000 * (config.hop_length + encoder_context(config.encoder)[1]) / config.sample_rate
    waits = {name: costs[name].look_ahead_ms for name in config.decoders if name in costs}
    return {name: None if wait is None else before + wait for name, wait in waits.items()}


def _part(name: str) -> str:
    return name.partition(".")[0]


def _rate(name: str, rates: Sequence[tuple[str, float]], config: ModelConfig) -> float:
    """How often in a second a weight is multiplied: once for a code unless it is said."""
    code_rate = config.sample_rate / config.hop_length
    return next((rate for prefix, rate in rates if re.match(prefix, name)), code_rate)


def _rates(config: ModelConfig) -> list[tuple[str, float]]:
    """Outputs in a second of layers by the beginnings of their names, the first that fits."""
    rate = config.sample_rate
    code_rate = rate / config.hop_length
    frame_rate = code_rate * (config.fast.upsample if config.fast else 1)
    return [
        *_encoder_rates(config.encoder, rate),
        ("speaker.mel", rate / 160),
        (r"speaker\.layers\.0\.", rate / 320),
        (r"speaker\.(layers|attention)\.", rate / 640),
        (r"speaker\.", 0),  # once for a recording
        (r"fast\.blocks\.\d+\.speaker\.", 0),
        (r"fast\.(blocks|head)\.", frame_rate),
        (r"wavenet\.(embedding|lower|speaker)\.", 0),  # look-ups, and once for a recording
        (r"wavenet\.layers\.\d+\.condition\.", code_rate),
        (r"wavenet\.(prediction|streams|conditioner|features)\.", code_rate),
        (r"wavenet\.", rate / (config.wavenet or WaveNetConfig()).n_bands),
    ]


def _encoder_rates(config: EncoderConfig, sample_rate: int) -> list[tuple[str, float]]:
    """The rates of its layers, numbered as models/encoder.py chains them."""
    first, *later = config.strides
    n_units = len(config.dilations)
    rate = sample_rate / first
    if config.paper:  # convolution and activation in turns
        layers = [rate, rate]
        for stride in later:
            rate /= stride
            layers += [rate, rate]
        begin: list[tuple[str, float]] = []
    else:
        layers, begin = [], [(r"encoder\.(filterbank|input)\.", rate)]
        for stride in later:
            layers += [rate] * n_units + [rate / stride]
            rate /= stride
    numbered = [(rf"encoder\.layers\.{i}\.", each) for i, each in enumerate(layers)]
    return [*begin, *numbered]  # what follows has the rate of the codes


def _look_ahead(config: ModelConfig, weights: Shapes) -> dict[str, int]:
    """Samples after the hop of a code that each part waits for."""
    hop_length = config.hop_length
    found = {"encoder": encoder_context(config.encoder)[1], "quantizer": 0}

    def kernel_reach(prefix: str) -> list[int]:
        """Codes to each side that convolutions see."""
        return [
            shape[-1] // 2
            for name, shape in weights.items()
            if name.startswith(prefix) and len(shape) == 3
        ]

    streams = max(kernel_reach("fast.streams."), default=0)
    if config.fast is not None:
        found["fast"] = istft_reach(config.fast, hop_length, streams)[0]
    if config.wavenet is not None:
        n_streams = len(kernel_reach("wavenet.streams."))
        found["wavenet"] = hop_length * condition_context(config, n_streams)[1]
    return found
