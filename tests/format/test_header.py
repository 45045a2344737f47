"""The header's one declaration: what docs/format.md says of it, and what the metadata holds."""

from __future__ import annotations

import struct
from dataclasses import fields
from pathlib import Path

from vqcodec.format.header import FIELDS, Header

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"
TYPES = {"B": "u8", "H": "u16", "I": "u32", "Q": "u64", "f": "f32"}


def declared_table() -> str:
    """The table of docs/format.md as the declaration has it."""
    lines = ["| offset | type | field | allowed | meaning |", "|---:|---|---|---|---|"]
    offset = 0
    for field in FIELDS:
        allowed, size = field.allowed, struct.calcsize("<" + field.type)
        if isinstance(allowed, tuple):
            allowed = "..".join(f"{limit - field.less:,}" for limit in allowed)
        name = f"{field.name} - {field.less}" if field.less else field.name
        cells = offset, TYPES.get(field.type, f"{size} bytes"), name, allowed, field.meaning
        lines.append(f"| {' | '.join(map(str, cells))} |")
        offset += size
    return "\n".join(lines) + "\n"


def test_the_documented_table_is_the_declared_one() -> None:
    assert declared_table() in FORMAT.read_text(encoding="utf-8")


def test_every_field_of_the_fixed_part_can_be_asked_for() -> None:
    # The speaker stands for its length, and no user needs the others.
    hidden = {"magic", "version", "speaker_length"}
    assert {one.name for one in FIELDS} - hidden <= {one.name for one in fields(Header)}
