"""Codes as the columns of a table, and back."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vqcodec.format.codes import Codes
from vqcodec.format.header import StreamMetadata
from vqcodec.format.stream_records import StreamRecord
from vqcodec.models.config import ModelConfig
from vqcodec.weights.registry import maker

METADATA, FINGERPRINT = b"vqcodec", b"fingerprint"
"""Keys of the metadata of a schema: a `Layout` as JSON, and its fingerprint by itself."""


@dataclass(frozen=True)
class Layout:
    """What all codes of a data set share.

    Attributes:
        model: name of the model that made them.
        fingerprint: of the model, as hexadecimal digits.
        n_codebooks, codebook_size, sample_rate, hop_length: of the model.
        pitch: codes_per_symbol, alphabet_size and step of the pitch beside the codes, if any is.
    """

    model: str
    fingerprint: str
    n_codebooks: int
    codebook_size: int
    sample_rate: int
    hop_length: int
    pitch: tuple[int, int, int] | None = None

    @classmethod
    def of_model(cls, name: str, fingerprint: bytes, config: ModelConfig) -> Layout:
        """That of the codes of a model."""
        pitch, quantizer = config.pitch, config.quantizer
        return cls(
            name,
            fingerprint.hex(),
            quantizer.n_codebooks,
            quantizer.codebook_size,
            config.sample_rate,
            config.hop_length,
            (pitch.codes_per_symbol, pitch.alphabet_size, pitch.step_cents) if pitch else None,
        )

    @classmethod
    def of_codes(cls, codes: StreamMetadata) -> Layout:
        """That of codes of an unknown data set."""
        pitch = codes.streams[0] if codes.streams else None
        return cls(
            maker(codes.fingerprint) or "",
            codes.fingerprint.hex(),
            codes.n_codebooks,
            codes.codebook_size,
            codes.sample_rate,
            codes.hop_length,
            (pitch.codes_per_symbol, pitch.alphabet_size, pitch.step) if pitch else None,
        )

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Layout:
        """That which was written with `asdict`."""
        pitch = values["pitch"]
        return cls(**{**values, "pitch": None if pitch is None else tuple(pitch)})

    @classmethod
    def of_schema(cls, schema: Any) -> Layout | None:
        """That which a table of codes tells of them, or None of any other table."""
        data = (schema.metadata or {}).get(METADATA)
        return (
            None if data is None or "codes" not in schema.names else cls.of_json(json.loads(data))
        )

    @property
    def metadata(self) -> dict[bytes, bytes]:
        """For the schema of a table."""
        return {METADATA: json.dumps(asdict(self)).encode(), FINGERPRINT: self.fingerprint.encode()}


def columns_of(codes: Codes) -> dict[str, Any]:
    """What a row of a table says of codes.

    Returns:
        duration (s), codes: (N * n_codebooks,) uint16, those of one moment beside each other;
        n_samples, sample_rate and gain of the recording; voice: the 64 bytes of its vector, or
        None where the codes name it; pitch: (M,) uint16 and pitch_hz, the mean, or None.
    """
    record = codes.streams[0] if codes.streams else None
    return {
        "duration": codes.duration_s,
        "codes": codes.codes.T.ravel(),
        "n_samples": codes.n_samples,
        "sample_rate": codes.original_sample_rate,
        "gain": codes.gain,
        "voice": None if isinstance(codes.speaker, str) else codes.speaker.tobytes(),
        "pitch": codes.symbols[record.kind] if record else None,
        "pitch_hz": record.reference if record else None,
    }


def codes_of(row: Mapping[str, Any], layout: Layout) -> Codes:
    """The codes that a row as of `columns_of` tells, in a data set of this layout.

    It has `speaker` where it has no voice, and bytes may be in base64. Raises CodesError if these
    cannot be codes.
    """
    streams: tuple[StreamRecord, ...] = ()
    symbols = {}
    if layout.pitch is not None and row["pitch"] is not None:
        names = "codes_per_symbol", "alphabet_size", "step"
        known = dict(zip(names, layout.pitch, strict=True))
        streams = (StreamRecord(kind="pitch", reference=row["pitch_hz"], **known),)
        symbols = {"pitch": np.asarray(row["pitch"], np.uint16)}
    voice = row["voice"]
    data = base64.b64decode(voice) if isinstance(voice, str) else voice
    return Codes(
        np.asarray(row["codes"], np.uint16).reshape(-1, layout.n_codebooks).T,
        n_samples=row["n_samples"],
        original_sample_rate=row["sample_rate"],
        gain=row["gain"],
        speaker=row["speaker"] if data is None else np.frombuffer(data, np.int8),
        fingerprint=bytes.fromhex(layout.fingerprint),
        codebook_size=layout.codebook_size,
        sample_rate=layout.sample_rate,
        hop_length=layout.hop_length,
        streams=streams,
        symbols=symbols,
    )
