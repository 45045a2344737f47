"""The report of units against phone labels: tables and images. Needs the extra `eval`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vqcodec.codec import Codec
from vqcodec.data.clips import duration
from vqcodec.data.labels import LabelledCorpus, read_labelled_corpus
from vqcodec.evaluation import plots
from vqcodec.evaluation.bootstrap import Mean
from vqcodec.evaluation.report import cell, markdown_table, write_report
from vqcodec.evaluation.unit_measures import (
    Frames,
    UnitScores,
    code_units,
    frame_recordings,
    labelled_frames,
    majority_phones,
    mfcc_units,
    score,
    score_majority,
)
from vqcodec.extras import library
from vqcodec.files import write_atomically

_COLUMNS = {
    "many_to_one": "many-to-one % ↑",
    "many_to_one_in_sample": "in sample (phone purity) % ↑",
    "cluster_purity": "cluster purity % ↑",
    "pnmi": "PNMI ↑",
    "v_measure": "V-measure ↑",
    "abx_within": "ABX within % ↓",
    "abx_across": "ABX across % ↓",
}


def evaluate(
    labels: Path,
    recordings: Path,
    output: Path,
    codec: Codec,
    on_progress: Callable[[float], None] | None = None,
) -> str:
    """Measure a model's units and, beside them, as many clusters of MFCCs; write a report.

    Args:
        labels: see `read_labelled_corpus`.
        recordings: see `read_labelled_corpus`.
        output: folder of units.csv, units.md and its images.
        codec: of one codebook.
        on_progress: called with the share of recordings encoded, in [0, 1].

    Returns:
        The page, Markdown.

    Raises:
        VqcodecError: labels, recordings or model cannot be used, or the extra is not installed.
    """
    for name in ("matplotlib", "librosa", "sklearn"):  # missed now rather than after the work
        library(name)
    corpus = read_labelled_corpus(labels, recordings)
    frames = frame_recordings(corpus.clips, codec, on_progress)
    ours = code_units(frames, codec)
    n_units = codec.config.quantizer.codebook_size
    theirs = [mfcc_units(frames, n_units, is_normalised=flag) for flag in (False, True)]
    scores = [
        one
        for has_silence in (True, False)
        for one in (
            *(score(frames, each, has_silence=has_silence) for each in (ours, *theirs)),
            score_majority(frames, has_silence=has_silence),
        )
    ]
    training, scored = (
        labelled_frames(frames, ours, is_training=part).counts() for part in (True, False)
    )
    names = list(frames.classes)
    images = {
        "units_phones.png": plots.phones_of_units(scored, names),
        "units_usage.png": plots.unit_usage(scored),
        "units_codebook.png": plots.codebook_map(ours.vectors, majority_phones(training), names),
    }
    text = page(corpus, frames, codec, scores, list(images))
    for name, image in images.items():
        write_atomically(output / name, image)
    write_report(output, "units", [_row(one) for one in scores], text)
    return text


def page(
    corpus: LabelledCorpus,
    frames: Frames,
    codec: Codec,
    scores: Sequence[UnitScores],
    images: Sequence[str],
) -> str:
    """The Markdown page of a report."""
    parts = {}
    for is_training in (True, False):
        own = [clip for clip in frames.clips if clip.source.is_training == is_training]
        length = duration(sum(len(clip.codes) for clip in own) / frames.frame_rate)
        speakers = {clip.source.utterance.speaker for clip in own}
        parts[is_training] = f"{len(own)} recordings, {length}", speakers
    (learnt, teachers), (scored, speakers) = parts[True], parts[False]
    held_out = sorted(speakers - teachers)
    phones = sorted(frames.classes)
    unused = f" {len(corpus.unused)} labels have no recording." if corpus.unused else ""
    return (
        f"Model {codec.name} ({codec.fingerprint.hex()}), {frames.frame_rate:g} units a second of "
        f"{codec.config.quantizer.codebook_size}.\n"
        f"Scored: {scored} of {len(speakers)} speakers, {len(held_out)} of them not in the "
        f"training part{': ' + ', '.join(held_out) if held_out else ''}.\n"
        f"Training part (maps and k-means): {learnt} of {len(teachers)} speakers.{unused}\n\n"
        f"{markdown_table([_cells(one) for one in scores])}\n"
        "In brackets the interval that holds a value with 95 % confidence (bootstrap over "
        f"recordings). {len(phones)} phone classes: {' '.join(phones)}. "
        "docs/models/units-25hz.md says how each column is measured.\n\n"
        + "".join(f"![]({name})\n" for name in images)
    )


def _row(one: UnitScores) -> dict[str, object]:
    """A row of the CSV file."""
    found = _means(one)
    row: dict[str, object] = {
        "units": one.units,
        "has_silence": one.has_silence,
        "n_frames": one.n_frames,
        **{name: mean.value for name, mean in found.items()},
    }
    for name in ("abx_within", "abx_across"):
        abx = one.abx.get(name)
        row[f"{name}_pairs"] = abx and abx.n_pairs
        row[f"{name}_triples"] = abx and abx.n_triples
    for name, mean in found.items():
        row[f"{name}_low"], row[f"{name}_high"] = mean.interval or (None, None)
    return row


def _cells(one: UnitScores) -> dict[str, str]:
    """A row of the table."""
    silence = "with" if one.has_silence else "without"
    row = {"units": one.units, "silence": silence, "frames": str(one.n_frames)}
    for name, mean in _means(one).items():
        title = _COLUMNS[name]
        row[title] = cell(mean.in_percent(), 1) if "%" in title else cell(mean, 3)
    return row


def _means(one: UnitScores) -> dict[str, Mean]:
    """A value for each of `_COLUMNS`."""
    found = one.measures | {name: abx.error for name, abx in one.abx.items()}
    return {name: found.get(name, Mean(None, 0)) for name in _COLUMNS}
