"""What the outputs of the networks depend on, from their configuration alone: knows no torch."""

from __future__ import annotations

from vqcodec.models.config import (
    EncoderConfig,
    IstftDecoderConfig,
    ModelConfig,
    WaveNetConfig,
)

STREAM_KERNEL_SIZE = 9  # codes: of the convolution by which a stream reaches a decoder
N_CONDITIONERS = 2  # convolutions of kernel 3 between the latents and the WaveNet's layers


def padding(kernel: int, stride: int, causal: bool) -> tuple[int, int]:
    """Zeros before and after T inputs of a convolution that make T / stride outputs."""
    excess = kernel - stride
    return (excess, 0) if causal else (excess // 2, (excess + 1) // 2)


def encoder_context(config: EncoderConfig) -> tuple[int, int]:
    """Samples before, and samples after its hop, that one latent vector sees."""
    if config.paper:
        layers = [(4, 2)] * len(config.strides)
    else:
        first, *later = config.strides
        units = [(1 + 2 * dilation, 1) for dilation in config.dilations]
        layers = [(config.kernel_length, first)]
        for stride in later:
            layers += [*units, (2 * stride, stride)]
        layers += units
    before, after, rate = 0, 0, 1
    for kernel, stride in layers:
        left, right = padding(kernel, stride, config.causal)
        before, after, rate = before + left * rate, after + right * rate, rate * stride
    return before, after


def istft_reach(config: IstftDecoderConfig, hop_length: int, streams: int = 0) -> tuple[int, int]:
    """Samples before and after the hop of a code that it takes part in.

    `streams` are the codes on each side that streams are mixed with before the blocks, as latents
    are.
    """
    frame_hop = hop_length // config.upsample
    window = (config.n_fft - frame_hop) // 2
    backward, forward = (
        window + max(own, streams) * hop_length + own * config.n_layers * frame_hop
        for own in _kernel_reach(config)
    )
    return backward, forward


def feature_reach(config: IstftDecoderConfig, streams: int) -> tuple[int, int]:
    """Codes before and after whose `IstftDecoder.features` it takes part in; see `istft_reach`."""
    backward, forward = (
        max(own, streams) + -(-own * config.n_layers // config.upsample)
        for own in _kernel_reach(config)
    )
    return backward, forward


def _kernel_reach(config: IstftDecoderConfig) -> tuple[int, int]:
    """Frames before and after that see a frame through one convolution."""
    half = config.kernel_size // 2
    return (0, 2 * half) if config.causal else (half, half)


def stream_reach(n_streams: int) -> int:
    """Codes on each side that a code's streams are mixed with."""
    return STREAM_KERNEL_SIZE // 2 if n_streams else 0


def condition_context(config: ModelConfig, n_streams: int) -> tuple[int, int]:
    """Codes before, and after a code, that what the WaveNet is told of it depends on."""
    # Streams and features come after the first of the convolutions of kernel 3.
    streams, mixed = stream_reach(n_streams), N_CONDITIONERS - 1
    own = mixed + max(1, streams)
    if config.fast is None or config.wavenet is None or not config.wavenet.hears_fast:
        return own, own
    backward, forward = feature_reach(config.fast, streams)
    return max(own, mixed + forward), max(own, mixed + backward)


def wavenet_field(config: WaveNetConfig) -> int:
    """Steps before the predicted one that it depends on."""
    return 1 + sum(config.dilations)
