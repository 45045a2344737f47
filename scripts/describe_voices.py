"""Describe the packaged voices: `python scripts/describe_voices.py CORPUS`.

Writes vqcodec/weights/voices.json, which `vqcodec speakers` shows. Pitch and seconds are measured
on the training split, as `vqcodec enroll` measures them; sex and source are what the manifest says.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from vqcodec.audio import open_recording
from vqcodec.audio.analysis import pitches, seconds_of_sound
from vqcodec.files import write_atomically
from vqcodec.weights.registry import packaged, read_header

TARGET = Path(__file__).parents[1] / "vqcodec" / "weights" / "voices.json"
SEXES = {"f": "female", "m": "male"}
# Of VCTK's speaker-info.txt; LibriSpeech does not tell.
ACCENTS = {
    "p225": "English (Southern England)",
    "p226": "English (Surrey)",
    "p227": "English (Cumbria)",
    "p228": "English (Southern England)",
    "p239": "English (South West England)",
}


def main() -> None:
    """Write vqcodec/weights/voices.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path, help="a folder with a manifest.csv")
    corpus = parser.parse_args().corpus
    names = {name for path in packaged().values() for name in read_header(path).voices}
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (corpus / "manifest.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["speaker"] in names and row["split"] == "train":
                rows[row["speaker"]].append(row)
    if missing := names - rows.keys():
        raise SystemExit(f"{corpus}: has no training recordings of {', '.join(sorted(missing))}")
    voices = {name: described(name, corpus, rows[name]) for name in sorted(names)}
    write_atomically(TARGET, (json.dumps(voices, indent=1) + "\n").encode())


def described(name: str, corpus: Path, rows: list[dict[str, str]]) -> dict[str, str | float]:
    """What is known of a voice, as `speakers.VoiceInfo` has it."""
    found, seconds = [], 0.0
    for row in rows:
        recording = open_recording(corpus / row["path"])
        gain = recording.gain()
        found.append(pitches(recording, gain))
        seconds += float(seconds_of_sound(recording, gain).sum())
    accent = {"accent": ACCENTS[name]} if name in ACCENTS else {}
    return {
        "sex": SEXES[rows[0]["sex"]],
        "pitch_hz": round(float(np.median(np.concatenate(found))), 1),
        "seconds": round(seconds, 1),
        "source": rows[0]["source"],
        **accent,
    }


if __name__ == "__main__":
    main()
