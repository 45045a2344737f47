"""The page of a report: its table, its plot, and examples to hear and to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
.scroll { overflow-x: auto }
.players { display: grid; grid-template-columns: repeat(auto-fill, minmax(340px, 1fr)); gap: 1rem }
figure { margin: 0 } figcaption { font-weight: 600 } img { max-width: 100% } audio { width: 100% }
.text { font-style: italic } .scores { color: #555; font-size: 13px }
""".strip()


@dataclass(frozen=True)
class Player:
    """One recording as a codec gives it; paths of audio and spectrogram are below the page's."""

    caption: str
    audio: str
    image: str
    scores: Sequence[str]


@dataclass(frozen=True)
class Example:
    """One recording by all codecs; its text may be empty."""

    name: str
    speaker: str
    text: str
    players: Sequence[Player]


def page(
    notes: Sequence[str], table: Sequence[Mapping[str, str]], examples: Sequence[Example]
) -> str:
    """An HTML page that needs nothing but the files it lies beside.

    The notes are paragraphs, and the rows of the table have the same keys.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Speech quality</title><style>{_STYLE}</style></head><body>",
        "<h1>Speech quality</h1>",
        f'<div class="scroll">{_table(table)}</div>',
        *(f"<p>{escape(note)}</p>" for note in notes),
        '<p><img src="rate.png" alt="Quality against bit rate"></p>',
        *map(_section, examples),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    lines = ["".join(f"<th>{escape(name)}</th>" for name in rows[0])]
    lines += ["".join(f"<td>{escape(value)}</td>" for value in row.values()) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _section(example: Example) -> str:
    players = "\n".join(map(_figure, example.players))
    return (
        f"<h2>{escape(example.name)}, {escape(example.speaker)}</h2>\n"
        f'<p class="text">{escape(example.text)}</p>\n<div class="players">\n{players}\n</div>'
    )


def _figure(player: Player) -> str:
    caption = escape(player.caption)
    return (
        f"<figure><figcaption>{caption}</figcaption>"
        f'<img loading="lazy" src="{quote(player.image)}" alt="Spectrogram: {caption}">'
        f'<audio controls preload="none" src="{quote(player.audio)}"></audio>'
        f'<div class="scores">{escape(", ".join(player.scores))}</div></figure>'
    )
