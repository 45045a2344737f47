"""What the entropy coder saves, beside simpler models, and how fast it is; see README.md."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer
from command import Output, publish, run

import vqcodec
from vqcodec.codec import Codec
from vqcodec.data.prepared import Clip, PreparedData
from vqcodec.errors import CheckpointError, DataError
from vqcodec.evaluation.report import markdown_table
from vqcodec.format.chunks import Payload
from vqcodec.format.codes import Codes
from vqcodec.format.header import CHUNK_LENGTH, NGRAM_DIGEST_LENGTH, pack_header
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.format.stream_records import CodeBlock, split
from vqcodec.models.speaker_vector import from_int8
from vqcodec.prior import Prior, load
from vqcodec.training.prior_data import CodedClip, encode_clips

PACKED, NGRAM = "packed bits", "ngram-ans"
ORDER_0, ORDER_1, PRIOR = "order 0", "order 1 (interpolated)", "transformer"

Predictor = Callable[[CodedClip], np.ndarray]
"""A clip -> bits of each of its codes."""


def coded_splits(
    codec: Codec, data: PreparedData, names: list[str], store: Path
) -> dict[str, list[tuple[Clip, CodedClip]]]:
    """The clips of the training split and of others, with their codes.

    Args:
        codec: of one codebook.
        data: the prepared folder.
        names: of the other splits.
        store: the file that keeps the codes from one run to the next.

    Raises:
        DataError: a split is empty; and as `encode_clips`.
    """
    by_split = {name: data.split(name) for name in ("train", *names)}
    for name, clips in by_split.items():
        if not clips:
            raise DataError(f"{data.root}: no clip in split {name}; choose others with --splits")
    wanted = [clip for clips in by_split.values() for clip in clips]
    found = iter(zip(wanted, encode_clips(codec, data, wanted, store), strict=True))
    return {name: [next(found) for _ in clips] for name, clips in by_split.items()}


def counting_models(clips: list[CodedClip], codebook_size: int) -> dict[str, Predictor]:
    """Models that count the codes of the training clips.

    Order 1 interpolates with order 0 by how many codes have followed the last one (Witten and Bell
    1991), and order 0 adds a half to every count.
    """
    begin = codebook_size
    single = np.bincount(np.concatenate([clip.codes for clip in clips]), minlength=begin) + 0.5
    single /= single.sum()
    pairs = np.zeros((codebook_size + 1, codebook_size))
    for clip in clips:
        np.add.at(pairs, (np.append(begin, clip.codes[:-1]), clip.codes), 1)
    # After a code that never occurred, order 0 alone.
    n_following = np.maximum((pairs > 0).sum(1, keepdims=True), 1)
    pairs = (pairs + n_following * single) / (pairs.sum(1, keepdims=True) + n_following)
    return {
        ORDER_0: lambda clip: -np.log2(single[clip.codes]),
        ORDER_1: lambda clip: -np.log2(pairs[np.append(begin, clip.codes[:-1]), clip.codes]),
    }


def prior_model(prior: Prior) -> dict[str, Predictor]:
    """The prior, told who speaks."""

    def bits(clip: CodedClip) -> np.ndarray:
        speaker = torch.from_numpy(from_int8(clip.vector))
        return prior.model.bits(torch.from_numpy(clip.codes), speaker).numpy()

    return {PRIOR: bits}


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


def chunks_of(file: Codes) -> list[CodeBlock]:
    """Its codes, chunk by chunk."""
    return list(split(CodeBlock(file.codes), (), 0, CHUNK_LENGTH))


def measured(file: Codes, coded: CodedClip, models: dict[str, Predictor]) -> dict[str, Any]:
    """Payload and file of a clip in bytes, by every coding.

    What only predicts is taken to need its bits and no more, in a file that is otherwise the same.
    """
    assert file.tables is not None
    chunks = chunks_of(file)
    around = len(pack_header(file, n_samples=file.n_samples, index=bytes(8 * len(chunks))))
    payloads = {
        PACKED: sum(file.payload_size(0, chunk.codes.shape[1]) for chunk in chunks),
        **{name: float(predict(coded).sum()) / 8 for name, predict in models.items()},
        NGRAM: sum(len(file.tables.encode(chunk)) for chunk in chunks),
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

    def total(name: str, column: str) -> float:
        return sum(row[column] for row in rows if row["split"] == name)

    lines = []
    for coding in codings:
        line = {"coding": coding}
        for name in splits:
            bits = 8 * total(name, f"{coding}, payload") / total(name, "n_codes")
            share = total(name, f"{coding}, file") / total(name, f"{PACKED}, file")
            line |= {f"{name}, bits/code": f"{bits:.3f}", f"{name}, file / packed": f"{share:.1%}"}
        lines.append(line)
    return lines


def speeds(files: list[Codes], ngram_model: NgramModel, repeats: int) -> dict[str, float]:
    """Seconds of audio per second of the processor, by part; medians."""
    seconds = sum(file.duration_s for file in files)
    chunks = [chunk for file in files for chunk in chunks_of(file)]
    times: dict[str, list[float]] = {"encode": [], "decode": []}
    for _ in range(repeats):
        start = time.process_time()
        payloads = [ngram_model.encode(chunk) for chunk in chunks]
        middle = time.process_time()
        for chunk, payload in zip(chunks, payloads, strict=True):
            ngram_model.decode([Payload(payload, chunk.codes.shape[1])])
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
    output: Output = Path("report"),
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
        "Seconds of audio per second of one core: "
        + ", ".join(f"{name} {value:.0f}" for name, value in speed.items())
        + f" (split {names[0]}, medians of {repeats}).\n"
    )
    publish(output, "entropy", rows, page)


if __name__ == "__main__":
    run(main)
