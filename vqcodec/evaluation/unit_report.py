"""The report of units against phone labels: tables and images. Needs the extra `eval`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from vqcodec.codec import Codec
from vqcodec.data.labels import LabelledCorpus, read_labelled_corpus
from vqcodec.evaluation import unit_plots
from vqcodec.evaluation.abx import ABX
from vqcodec.evaluation.report import markdown_table, write_report
from vqcodec.evaluation.unit_measures import (
    Frames,
    UnitScores,
    code_units,
    frame_recordings,
    majority_phones,
    mfcc_units,
    score,
    score_majority,
    tables,
)
from vqcodec.extras import library
from vqcodec.files import write_atomically


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
            score_majority(frames, ours, has_silence=has_silence),
        )
    ]
    training, scored = tables(frames, ours, has_silence=True)
    names = list(frames.classes)
    images = {
        "units_phones.png": unit_plots.phones(scored, names),
        "units_usage.png": unit_plots.usage(scored),
        "units_codebook.png": unit_plots.codebook(ours.vectors, majority_phones(training), names),
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
        minutes = sum(len(clip.codes) for clip in own) / frames.frame_rate / 60
        speakers = {clip.source.utterance.speaker for clip in own}
        parts[is_training] = f"{len(own)} recordings, {minutes:.1f} minutes", speakers
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
        f"{len(phones)} phone classes: {' '.join(phones)}. "
        "docs/models/units-25hz.md says how each column is measured.\n\n"
        + "".join(f"![]({name})\n" for name in images)
    )


def _row(one: UnitScores) -> dict[str, object]:
    """A row of the CSV file."""
    row: dict[str, object] = dataclasses.asdict(one)
    for key in ("abx_within", "abx_across"):
        found: ABX | None = getattr(one, key)
        row[key] = found and found.error
        row[f"{key}_pairs"] = found and found.n_pairs
        row[f"{key}_triples"] = found and found.n_triples
    return row


def _cells(one: UnitScores) -> dict[str, str]:
    """A row of the table."""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    def ratio(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    return {
        "units": one.units,
        "silence": "with" if one.has_silence else "without",
        "frames": str(one.n_frames),
        "many-to-one % ↑": percent(one.many_to_one),
        "in sample (phone purity) % ↑": percent(one.many_to_one_in_sample),
        "cluster purity % ↑": percent(one.cluster_purity),
        "PNMI ↑": ratio(one.pnmi),
        "V-measure ↑": ratio(one.v_measure),
        "ABX within % ↓": percent(one.abx_within and one.abx_within.error),
        "ABX across % ↓": percent(one.abx_across and one.abx_across.error),
    }
