r"""Label the phones of a corpus by forced alignment of its transcripts.

python tools/label_corpus.py CORPUS labels/                     # to train on (prepare --labels)
python tools/label_corpus.py CORPUS labels/ --train-minutes 45  # enough to judge units by

Needs pocketsphinx (pip install 'vqcodec[eval]'), whose acoustic model and dictionary are American
English.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from pocketsphinx import Decoder

from vqcodec import audio
from vqcodec.audio.writing import to_int16
from vqcodec.data import corpora
from vqcodec.errors import VqcodecError
from vqcodec.evaluation.quality import SAMPLE_RATE
from vqcodec.evaluation.report import spread
from vqcodec.files import write_atomically
from vqcodec.format.textgrid import Interval, textgrid

FRAME_RATE = 100


def words_of(text: str, decoder: Decoder) -> list[str] | None:
    """The words as the dictionary spells them; None if it lacks one."""
    words = re.sub(r"[^a-z' ]", " ", text.lower().replace("\u2019", "'")).split()
    known = [word if decoder.lookup_word(word) else word.strip("'") for word in words]
    return known if known and all(map(decoder.lookup_word, known)) else None


def align(decoder: Decoder, waveform: np.ndarray, words: Sequence[str]) -> list[Interval]:
    """Phones of a recording and when they are said; RuntimeError where there is no path.

    Args:
        decoder: of pocketsphinx, with its own beams.
        waveform: (T,) at `SAMPLE_RATE`.
        words: all in the dictionary.
    """
    pcm = to_int16(waveform).tobytes()
    decoder.set_align_text(" ".join(words))
    for is_second in (False, True):
        # Words first, then their phones: pocketsphinx does not do both at once.
        if is_second:
            decoder.set_alignment()
        # The cepstral mean of recordings before would move the phones of this one.
        decoder.reinit_feat()
        decoder.start_utt()
        decoder.process_raw(pcm, full_utt=True)
        decoder.end_utt()
    phones = [phone for word in decoder.get_alignment() for phone in word]
    starts = [phone.start / FRAME_RATE for phone in phones]
    ends = [*starts[1:], len(waveform) / SAMPLE_RATE]
    return [
        Interval(start, end, phone.name)
        for start, end, phone in zip(starts, ends, phones, strict=True)
    ]


def main(
    corpus: Annotated[Path, typer.Argument(help="A folder with a manifest.csv that has texts.")],
    output: Annotated[Path, typer.Argument(help="Folder of the TextGrids.")],
    splits: Annotated[str, typer.Option(help="With commas between.")] = ",".join(corpora.SPLITS),
    train_minutes: Annotated[
        float, typer.Option(help="Of train, evenly over it; else all.")
    ] = math.inf,
) -> None:
    """Write OUTPUT/NAME.TextGrid for every recording that can be aligned.

    Those without a text, with a word that is not in the dictionary, or that cannot be aligned are
    left out and counted.
    """
    # The best path through a lattice may give a phone less than the three frames that its second
    # pass needs.
    decoder = Decoder(samprate=SAMPLE_RATE, bestpath=False, loglevel="FATAL")
    utterances = [each for each in corpora.utterances(corpus) if each.text]
    for split in splits.split(","):
        clips = [utterance for utterance in utterances if utterance.split == split]
        if split == "train" and clips:
            minutes = sum(audio.info(clip.path).duration_s for clip in clips) / 60
            clips = spread(clips, round(len(clips) * min(train_minutes / minutes, 1)))
        outcomes: Counter[str] = Counter()
        for clip in clips:
            words = words_of(clip.text, decoder)
            if words is None:
                outcomes["with a word not in the dictionary"] += 1
                continue
            try:
                phones = align(decoder, audio.load(clip.path, SAMPLE_RATE), words)
            except RuntimeError:
                outcomes["not alignable"] += 1
                continue
            target = output / f"{clip.name}.TextGrid"
            write_atomically(target, textgrid(phones, tier="phones").encode())
            outcomes["labelled"] += 1
        typer.echo(f"{split}: {', '.join(f'{n} {what}' for what, n in outcomes.items())}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except VqcodecError as error:
        sys.exit(f"error: {error}")
