"""What the entropy coder saves, beside simpler models, and how fast it is; see README.md."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from command import run
from counting import Predictor, coded_splits, counting_models, prior_model

import vqcodec
from vqcodec.codec import Codec
from vqcodec.data.prepared import Clip, PreparedData
from vqcodec.errors import CheckpointError
from vqcodec.evaluation.report import markdown_table, write_report
from vqcodec.format.codes import Codes
from vqcodec.format.header import CHUNK_LENGTH, NGRAM_DIGEST_LENGTH, pack_header
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.format.stream_records import CodeBlock
from vqcodec.prior import load
from vqcodec.training.prior_data import CodedClip

PACKED, NGRAM = "packed bits", "ngram-ans"


def file_of(codec: Codec, clip: Clip, coded: CodedClip, ngram_model: NgramModel) -> Codes:
    """The codes of a clip with its own speaker vector, as `vqcodec encode` writes them."""
    return Codes(
        coded.codes[None],
        codebook_size=ngram_model.codebook_size,
        sample_rate=codec.sample_rate,
        hop_length=codec.hop_length,
        fingerprint=codec.fingerprint,
        original_sample_rate=codec.sample_rate,
        n_samples=clip.n_samples,
        gain=clip.gain,
        speaker=coded.vector,
        tables=ngram_model,
    )


def chunks_of(files: list[Codes], length: int | None = CHUNK_LENGTH) -> list[np.ndarray]:
    """Their codes in chunks, or whole."""
    return [
        file.codes[:, start : start + (length or file.n_codes)]
        for file in files
        for start in range(0, file.n_codes, length or file.n_codes)
    ]


def measured(file: Codes, coded: CodedClip, models: dict[str, Predictor]) -> dict[str, Any]:
    """Payload and file of a clip in bytes, by every coding.

    What only predicts is taken to need its bits and no more, in a file that is otherwise the same.
    """
    assert file.tables is not None
    chunks = chunks_of([file])
    around = len(pack_header(file, n_samples=file.n_samples, index=bytes(8 * len(chunks))))
    payloads = {
        PACKED: sum(file.payload_size(0, chunk.shape[1]) for chunk in chunks),
        **{name: float(predict(coded).sum()) / 8 for name, predict in models.items()},
        NGRAM: sum(len(file.tables.encode(CodeBlock(chunk))) for chunk in chunks),
    }
    files = {name: around + NGRAM_DIGEST_LENGTH + size for name, size in payloads.items()}
    files |= {PACKED: around + payloads[PACKED], NGRAM: len(file.to_bytes())}
    row: dict[str, Any] = {"n_codes": file.n_codes}
    for name, size in payloads.items():
        row |= {f"{name}, payload": size, f"{name}, file": files[name]}
    return row


def summary(
    rows: list[dict[str, Any]], codings: Sequence[str], splits: list[str]
) -> list[dict[str, str]]:
    """A line for each coding: bits per code, and its files' share of the packed files' bytes."""

    def total(split: str, column: str) -> float:
        return sum(row[column] for row in rows if row["split"] == split)

    lines = []
    for coding in codings:
        line = {"coding": coding}
        for split in splits:
            bits = 8 * total(split, f"{coding}, payload") / total(split, "n_codes")
            share = total(split, f"{coding}, file") / total(split, f"{PACKED}, file")
            line |= {
                f"{split}, bits/code": f"{bits:.3f}",
                f"{split}, file / packed": f"{share:.1%}",
            }
        lines.append(line)
    return lines


def costs_of_chunks(files: dict[str, list[Codes]], ngram_model: NgramModel) -> list[dict[str, str]]:
    """A line for each length of chunks: bits per code."""
    lines = []
    for length in (25, 125, 500, CHUNK_LENGTH, None):
        line = {"time steps a chunk": str(length or "all")}
        for split, own in files.items():
            n_bytes = sum(
                len(ngram_model.encode(CodeBlock(chunk))) for chunk in chunks_of(own, length)
            )
            line[f"{split}, bits/code"] = f"{8 * n_bytes / sum(file.n_codes for file in own):.3f}"
        lines.append(line)
    return lines


def speeds(files: list[Codes], ngram_model: NgramModel, repeats: int) -> dict[str, float]:
    """Seconds of audio per second of the processor, by part; medians."""
    seconds = sum(file.duration_s for file in files)
    chunks = chunks_of(files)
    times: dict[str, list[float]] = {"encode": [], "decode": []}
    for _ in range(repeats):
        start = time.process_time()
        payloads = [ngram_model.encode(CodeBlock(chunk)) for chunk in chunks]
        middle = time.process_time()
        for chunk, payload in zip(chunks, payloads, strict=True):
            ngram_model.decode(payload, chunk.shape[1])
        times["encode"].append(middle - start)
        times["decode"].append(time.process_time() - middle)
    encode, decode = (median(own) for own in times.values())
    return {
        "encode": seconds / encode,
        "decode": seconds / decode,
        "encode, read back, decode": seconds / (encode + 2 * decode),
    }


def main(
    data: Annotated[Path, typer.Argument(help="A folder that vqcodec prepare made.")],
    model: Annotated[str | None, typer.Option(help="Name or path of a model.")] = None,
    splits: Annotated[str, typer.Option(help="Separated by commas.")] = "valid,test,test_unseen",
    codes: Annotated[
        Path, typer.Option(help="Where the clips' codes are kept from one run to the next.")
    ] = Path("report/codes.safetensors"),
    repeats: Annotated[int, typer.Option(min=1, help="Of which the median counts.")] = 5,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder.")] = Path("report"),
) -> None:
    """Measure bits per code, file sizes and speed; write entropy.csv and entropy.md."""
    torch.set_num_threads(1)
    codec = vqcodec.load(model, device="cpu", voices=False)
    ngram_model = codec.tables
    if ngram_model is None:
        raise CheckpointError(
            f"{codec.name}: has no n-gram model; fit it with tools/models.py package --train-data"
        )
    names = splits.split(",")
    coded = coded_splits(codec, PreparedData(data), names, codes)
    models = counting_models([clip for _, clip in coded["train"]], ngram_model.codebook_size)
    with contextlib.suppress(CheckpointError):  # not every codec has a prior
        models |= prior_model(load(codec))

    files: dict[str, list[Codes]] = {name: [] for name in names}
    rows = []
    for name in names:
        for clip, known in coded[name]:
            file = file_of(codec, clip, known, ngram_model)
            files[name].append(file)
            rows.append({"file": clip.name, "split": name, **measured(file, known, models)})
    speed = speeds(files[names[0]], ngram_model, repeats)
    n_bytes = sum(array.nbytes for array in ngram_model.to_tensors().values())
    page = (
        f"Model {codec.name} ({codec.fingerprint.hex()}), n-gram model {ngram_model.digest.hex()}, "
        f"{n_bytes} bytes. Files are whole, with headers and speaker vectors.\n\n"
        f"{markdown_table(summary(rows, [PACKED, *models, NGRAM], names))}\n"
        "What it costs that chunks can be decoded on their own, payloads alone:\n\n"
        f"{markdown_table(costs_of_chunks(files, ngram_model))}\n"
        "Seconds of audio per second of one core: "
        + ", ".join(f"{name} {value:.0f}" for name, value in speed.items())
        + f" (split {names[0]}, medians of {repeats}).\n"
    )
    write_report(output, "entropy", rows, page)
    typer.echo(page)


if __name__ == "__main__":
    run(main)
