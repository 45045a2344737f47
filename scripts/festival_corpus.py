r"""Make a corpus whose phones and their times are known: festival reads every line of a text.

python scripts/festival_corpus.py sentences.txt corpus/
vqcodec units-eval corpus/

Needs Debian's festival, festvox-kallpc16k, festvox-kdlpc16k and festvox-us-slt-hts. Each voice gets
a folder, and each recording a .lab file in HTK's format (100 ns) beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from vqcodec.files import write_atomically

VOICES = {
    "kal": "voice_kal_diphone",
    "ked": "voice_ked_diphone",
    "slt": "voice_cmu_us_slt_arctic_hts",
}


def main() -> None:
    """Write the corpus."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", type=Path, help="a text file, a recording for each line")
    parser.add_argument("output", type=Path, help="folder of the corpus")
    arguments = parser.parse_args()
    lines = [line for line in arguments.text.read_text("utf-8").splitlines() if line.strip()]
    for name, voice in VOICES.items():
        speak(voice, lines, arguments.output / name)


def speak(voice: str, lines: Sequence[str], folder: Path) -> None:
    """Say lines in one voice: folder/0.wav and folder/0.lab are the first of them."""
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
        subprocess.run(["festival", "-b", str(script)], check=True, capture_output=True)
        for number in range(len(lines)):
            label_file = lab(Path(scratch, str(number)).read_text())
            write_atomically(folder / f"{number}.lab", label_file.encode())


def lab(segments: str) -> str:
    """What festival saves of the Segment relation (end in seconds, a number, phone) as a .lab."""
    rows = [line.split() for line in segments.splitlines()[1:]]
    ends = [round(float(end) * 1e7) for end, _, _ in rows]
    times = zip([0, *ends], ends, (phone for *_, phone in rows), strict=False)
    return "".join(f"{start} {end} {phone}\n" for start, end, phone in times)


if __name__ == "__main__":
    main()
