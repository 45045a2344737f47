r"""Make a corpus whose phones and their times are known: festival reads every line of a text.

python scripts/festival_corpus.py sentences.txt corpus/
vqcodec units-eval corpus/

Needs Debian's festival, festvox-kallpc16k, festvox-kdlpc16k and festvox-us-slt-hts. Each voice gets
a folder, and each recording a TextGrid beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from vqcodec.files import write_atomically
from vqcodec.format.textgrid import Interval, textgrid

VOICES = {
    "kal": "voice_kal_diphone",
    "ked": "voice_ked_diphone",
    "slt": "voice_cmu_us_slt_arctic_hts",
}


def main() -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path, help="a text file, a recording for each line")
    parser.add_argument("output", type=Path, help="folder of the corpus")
    arguments = parser.parse_args()
    lines = [line for line in arguments.text.read_text("utf-8").splitlines() if line.strip()]
    for name, voice in VOICES.items():
        speak(voice, lines, arguments.output / name)


def speak(voice: str, lines: Sequence[str], folder: Path) -> None:
    """Say lines in one voice: folder/0.wav and folder/0.TextGrid are the first of them."""
    folder.mkdir(parents=True, exist_ok=True)
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
            phones = intervals(Path(scratch, str(number)).read_text())
            write_atomically(
                folder / f"{number}.TextGrid", textgrid(phones, tier="phones").encode()
            )


def intervals(segments: str) -> list[Interval]:
    """Phones of the Segment relation as festival saves it: end in seconds, a number, phone."""
    rows = [line.split() for line in segments.splitlines()[1:]]
    times = pairwise([0.0, *(float(end) for end, *_ in rows)])
    return [Interval(*time, phone) for time, (*_, phone) in zip(times, rows, strict=True)]


if __name__ == "__main__":
    main()
