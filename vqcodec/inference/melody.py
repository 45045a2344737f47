"""The pitch stream at work: from a recording to symbols, from symbols to what decoders are told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vqcodec.audio import Recording
from vqcodec.audio.pitch_tracker import STEP, contour_blocks
from vqcodec.format.codes import Codes
from vqcodec.format.header import StreamMetadata
from vqcodec.format.stream_records import CodeBlock, StreamRecord
from vqcodec.format.streaming import CodesStream, metadata_of
from vqcodec.inference import chunking
from vqcodec.inference.engines import NO_STREAMS, Engine, Streams
from vqcodec.models.config import ModelConfig, PitchConfig
from vqcodec.models.pitch import Contour, PitchQuantizer, PitchStream, bent, mean_log_f0

KIND = "pitch"


class Pitch(NamedTuple):
    """How high it shall be said.

    Attributes:
        recorded, told: mean log F0 of the recording, and the one it shall have.
        stretch: what the rise and fall about it are multiplied by.
    """

    recorded: float
    told: float
    stretch: float = 1.0


@dataclass(frozen=True, eq=False)
class Voice:
    """Who shall say it.

    Attributes:
        vector: (S,) float32.
        pitch: None where decoders are not told any.
    """

    vector: np.ndarray
    pitch: Pitch | None = None

    def streams(self, contour: Contour | None) -> Streams:
        """What an engine is told beside codes and vector; the contour (N,) is the recording's."""
        if self.pitch is None or contour is None:
            return NO_STREAMS
        return {KIND: PitchStream.features(bent(contour, *self.pitch))}

    def is_like(self, other: Voice) -> bool:
        """Whether decoders are told the same."""
        return np.array_equal(self.vector, other.vector) and self.pitch == other.pitch


def tracked_blocks(
    engine: Engine, blocks: Iterable[np.ndarray], *, step: int, live: bool = False
) -> Iterator[Contour]:
    """`contour_blocks` of normalised blocks at the model's rate, over the engine's threads."""
    return contour_blocks(
        blocks,
        engine.config.hop_length,
        step=step,
        mapped=lambda function, items: chunking.map_in_order(
            function, items, engine.n_threads, live=live
        ),
    )


def tracked(engine: Engine, recording: Recording, gain: float) -> Contour:
    """The contour (N,) of a whole recording of some level."""
    speech = recording.speech(engine.config.sample_rate, 1 << 16, gain)
    normalised = (block / np.float32(gain) for block in speech)
    return np.concatenate(list(tracked_blocks(engine, normalised, step=STEP)))


class Heard(NamedTuple):
    """What is told of the pitch of a whole recording: of a model without the stream, nothing.

    Attributes:
        streams, symbols: of the codes.
        contour: (N,) as decoders will be told it.
        pitch: of its own voice.
    """

    streams: tuple[StreamRecord, ...] = ()
    symbols: Mapping[str, npt.NDArray[np.uint16]] = MappingProxyType({})
    contour: Contour | None = None
    pitch: Pitch | None = None


def heard(engine: Engine, recording: Recording, gain: float) -> Heard:
    """Track a whole recording, if the model has a use for that, and quantise its contour."""
    config = engine.config.pitch
    if config is None:
        return Heard()
    contour = tracked(engine, recording, gain)
    record = _record(config, math.exp(mean_log_f0(contour)))
    quantizer, mean = quantizer_of(record), math.log(record.reference)
    symbols = quantizer.encode(contour, mean)
    told = quantizer.decode(symbols, mean, len(contour))
    return Heard((record,), {KIND: symbols}, told, Pitch(mean, mean))


def heard_live(
    engine: Engine, beginning: Recording, gain: float, hertz: float | None
) -> tuple[StreamRecord, ...]:
    """The streams of a recording that goes on, of which `beginning` has been heard.

    They are about the mean pitch of who speaks in Hz, or where that is None, of the beginning.
    """
    if engine.config.pitch is None:
        return ()
    if hertz is None:
        hertz = math.exp(mean_log_f0(tracked(engine, beginning, gain)))
    return (_record(engine.config.pitch, hertz),)


def _record(config: PitchConfig, hertz: float) -> StreamRecord:
    return StreamRecord(
        kind=KIND,
        codes_per_symbol=config.codes_per_symbol,
        alphabet_size=config.alphabet_size,
        step=config.step_cents,
        reference=hertz,
    )


def record_of(metadata: StreamMetadata) -> StreamRecord | None:
    """What codes say of the pitch that comes with them, if any does."""
    return next((one for one in metadata.streams if one.kind == KIND), None)


def quantizer_of(record: StreamRecord) -> PitchQuantizer:
    """By which symbols have their meaning."""
    return PitchQuantizer(record.codes_per_symbol, record.alphabet_size, record.step)


def with_symbols(
    codes: Iterable[npt.NDArray[np.uint16]], contours: Iterable[Contour], record: StreamRecord
) -> Iterator[CodeBlock]:
    """Codes (Q, n) and the contour (n,) of the same codes, block by block, as they are stored."""
    quantizer, mean = quantizer_of(record), math.log(record.reference)
    held = np.zeros(0, np.float32)
    for block, contour in zip(codes, contours, strict=True):
        held = np.concatenate([held, contour])
        n_whole = len(held) // record.codes_per_symbol * record.codes_per_symbol
        yield CodeBlock(block, {KIND: quantizer.encode(held[:n_whole], mean)})
        held = held[n_whole:]


def rows(codes: Codes | CodesStream, config: ModelConfig) -> Iterable[np.ndarray]:
    """What decoders are told of codes: `told_blocks`, or the codes where there is no pitch."""
    record = record_of(metadata_of(codes))
    if record is None or config.pitch is None:
        return codes if isinstance(codes, CodesStream) else [codes.codes]
    if isinstance(codes, CodesStream):
        return told_blocks(codes.blocks(), record)
    return told_blocks([CodeBlock(codes.codes, codes.symbols)], record)


def told_blocks(blocks: Iterable[CodeBlock], record: StreamRecord) -> Iterator[np.ndarray]:
    """What stored blocks tell of a recording, code by code, as soon as no later symbol changes it.

    Yields (Q + 1, n) float32: the codes, which it holds exactly, and below them the contour.
    """
    quantizer, mean = quantizer_of(record), math.log(record.reference)
    r, done, base = record.codes_per_symbol, 0, 0
    codes: npt.NDArray[np.uint16] | None = None
    symbols = np.zeros(0, np.uint16)

    def told(end: int) -> np.ndarray:
        """From the code `done` up to `end`."""
        assert codes is not None
        contour = quantizer.decode(symbols, mean, end - base * r)[done - base * r :]
        return np.concatenate([codes[:, : end - done].astype(np.float32), contour[None]])

    for block in blocks:
        codes = block.codes if codes is None else np.concatenate([codes, block.codes], axis=1)
        symbols = np.concatenate([symbols, block.symbols[KIND]])
        settled = min(base * r + quantizer.n_settled(len(symbols)), done + codes.shape[1])
        if settled > done:
            yield told(settled)
            codes, done = codes[:, settled - done :], settled
            n_old = max(done // r - 1, base) - base
            symbols, base = symbols[n_old:], base + n_old
    if codes is not None and codes.shape[1]:
        yield told(done + codes.shape[1])


def split(rows: np.ndarray, n_codebooks: int) -> tuple[np.ndarray, Contour | None]:
    """Codes (Q, N) and contour (N,) of what `told_blocks` gave, or of codes alone."""
    if len(rows) == n_codebooks:
        return rows, None
    return rows[:n_codebooks].astype(np.int64), rows[n_codebooks]
