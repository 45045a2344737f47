"""A corpus whose phones and their times are known: festival reads every line of a text.

Needs Debian's festival, festvox-kallpc16k, festvox-kdlpc16k and festvox-us-slt-hts.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from vqcodec.format.textgrid import Interval, textgrid

VOICES = {
    "kal": "voice_kal_diphone",
    "ked": "voice_ked_diphone",
    "slt": "voice_cmu_us_slt_arctic_hts",
}


def write_corpus(lines: Sequence[str], folder: Path) -> None:
    """Say the lines in every voice: folder/VOICE/0.wav and 0.TextGrid are the first of them."""
    for name, voice in VOICES.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        _speak(voice, lines, folder / name)


def _speak(voice: str, lines: Sequence[str], folder: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        program = [f"({voice})"]
        for number, line in enumerate(lines):
            # JSON's quotes and escapes are Scheme's.
            text, wave, segments = (
                json.dumps(each, ensure_ascii=False)
                for each in (line, str(folder / f"{number}.wav"), f"{scratch}/{number}")
            )
            program += [
                f"(set! utterance (SynthText {text}))",
                f"(utt.save.wave utterance {wave} 'riff)",
                f"(utt.save.segs utterance {segments})",
            ]
        script = Path(scratch, "program.scm")
        script.write_text("\n".join(program), encoding="utf-8")
        subprocess.run(["festival", "-b", str(script)], check=True)
        for number in range(len(lines)):
            phones = _intervals(Path(scratch, str(number)).read_text())
            path = folder / f"{number}.TextGrid"
            path.write_bytes(textgrid(phones, tier="phones").encode())


def _intervals(segments: str) -> list[Interval]:
    """Phones of the Segment relation as festival saves it: end in seconds, a number, phone."""
    rows = [line.split() for line in segments.splitlines()[1:]]
    times = pairwise([0.0, *(float(end) for end, *_ in rows)])
    return [Interval(*time, phone) for time, (*_, phone) in zip(times, rows, strict=True)]
