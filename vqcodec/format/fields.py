"""Fields of the header of a .codes file, and what is done to all of them. Imports no torch."""

from __future__ import annotations

import struct
import zlib
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from vqcodec.errors import CodesError

Number = TypeVar("Number", int, npt.NDArray[np.int64])
_NORMAL = (float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max))


class HeaderField(NamedTuple):
    """A field of the header's fixed part, or of the record of a stream.

    Attributes:
        name: Of the field and of the attribute that holds its value.
        type: In the notation of `struct`.
        allowed: Least and greatest whole number, or what else the value must be.
        meaning: In words.
        less: Subtracted from the value in the file.
    """

    name: str
    type: str
    allowed: tuple[int, int] | str
    meaning: str
    less: int = 0


def layout(declared: tuple[HeaderField, ...]) -> struct.Struct:
    """How the fields stand in a file, one after another."""
    return struct.Struct("<" + "".join(field.type for field in declared))


def limits(declared: tuple[HeaderField, ...]) -> dict[str, tuple[int, int]]:
    """Least and greatest value of those that are whole numbers, by their names."""
    return {one.name: one.allowed for one in declared if isinstance(one.allowed, tuple)}


def unpack_fields(declared: tuple[HeaderField, ...], stored: tuple[Any, ...]) -> dict[str, Any]:
    """What `struct` unpacked, by the names of the fields."""
    pairs = zip(declared, stored, strict=True)
    return {one.name: value + one.less if one.less else value for one, value in pairs}


def pack_fields(declared: tuple[HeaderField, ...], values: dict[str, Any]) -> list[Any]:
    """The opposite of `unpack_fields`."""
    return [values[one.name] - one.less if one.less else values[one.name] for one in declared]


def set_whole_numbers(owner: object, allowed: dict[str, tuple[int, int]]) -> None:
    """Check fields of a frozen dataclass, those that it has, and make them plain integers."""
    for name, (low, high) in allowed.items():
        if not hasattr(owner, name):  # a live recording has no n_samples
            continue
        value = getattr(owner, name)
        if not isinstance(value, (int, np.integer)) or not low <= value <= high:
            raise CodesError(f"{name} must be a whole number {low}..{high}, not {value!r}")
        object.__setattr__(owner, name, int(value))


def set_normal(owner: object, name: str) -> None:
    """Check a field of a frozen dataclass, and round it to float32."""
    value = getattr(owner, name)
    numeric = isinstance(value, (int, float, np.floating))
    if not numeric or not _NORMAL[0] <= value <= _NORMAL[1]:
        raise CodesError(f"{name} must be a positive, normal float32, not {value!r}")
    object.__setattr__(owner, name, float(np.float32(value)))


def crc32(*parts: bytes) -> bytes:
    """CRC-32 of what the parts make together, 4 bytes."""
    return struct.pack("<I", zlib.crc32(b"".join(parts)))


def damaged(name: str, fault: str) -> CodesError:
    """The error for a file whose bytes are not those that were written."""
    remedy = "copy it again from its source or encode the recording again"
    return CodesError(f"{name}: {fault}; {remedy}")


def ceil_div(numerator: Number, denominator: int) -> Number:
    """ceil(numerator / denominator), exactly."""
    return -(-numerator // denominator)
