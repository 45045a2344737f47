"""info and verify: what a file holds, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vqcodec_cli.display import message, show
from vqcodec_cli.models import describe
from vqcodec_cli.options import Json, ModelOfCodes

from vqcodec.errors import VqcodecError
from vqcodec.files import files_below

if TYPE_CHECKING:
    from vqcodec.format.header import Header
    from vqcodec.format.ngram_coder import NgramModel
    from vqcodec.format.stream_records import StreamRecord

MODEL_SUFFIX, CODES_SUFFIX = ".safetensors", ".codes"


def info(
    file: Annotated[str, typer.Argument(help="A code file, a recording, or a model.")],
    as_json: Json = False,
) -> None:
    """Say what a file holds.

    Example: vqcodec info out.codes
    """
    from vqcodec import list_models
    from vqcodec.weights.hub import is_hub_name

    if file in list_models() or is_hub_name(file) or Path(file).suffix == MODEL_SUFFIX:
        from vqcodec.weights.registry import find, read_header

        results = describe(read_header(find(file)))
    elif _holds_codes(Path(file)):
        results = _describe_codes(Path(file))
    else:
        from vqcodec.audio import info as audio_info

        names = ("format", "subtype", "sample_rate", "channels", "n_samples", "duration_s")
        results = {"kind": "recording", **_fields(audio_info(file), *names)}
    show(results, as_json=as_json)


def verify(
    files: Annotated[
        list[Path], typer.Argument(help="Code files, folders of them, or model files.")
    ],
    model: ModelOfCodes = None,
) -> None:
    """Check files to the last bit.

    Entropy-coded files need the model that made them, if that is not a packaged one.

    Example: vqcodec verify out.codes archive/
    """
    tables = None
    if model is not None:
        from vqcodec.weights import model_file

        tables = model_file.read(model).tables
    n_bad = 0
    for file in files:
        paths = files_below(file, (CODES_SUFFIX,)) if file.is_dir() else [file]
        if not paths:
            n_bad += 1
            typer.echo(f"bad {file}: holds no {CODES_SUFFIX} file")
        for path in paths:
            try:
                _check(path, tables)
                typer.echo(f"OK {path}")
            except VqcodecError as error:
                n_bad += 1
                typer.echo(f"bad {message(error)}")
    if n_bad:
        raise typer.Exit(1)


def _check(path: Path, tables: NgramModel | None) -> None:
    if path.suffix == MODEL_SUFFIX:
        from vqcodec.weights import model_file

        model_file.read(path).weights()
    else:
        from vqcodec import Codes

        _ = Codes.load(path, tables=tables).codes  # which decodes them


def _holds_codes(path: Path) -> bool:
    from vqcodec.format.header import MAGIC

    if path.suffix == CODES_SUFFIX or not path.is_file():
        return path.suffix == CODES_SUFFIX
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _describe_codes(path: Path) -> dict[str, Any]:
    from vqcodec.format.codes import read_header
    from vqcodec.format.header import FIELDS, METHODS
    from vqcodec.weights.registry import maker, pulled

    header = read_header(path)
    stored = _fields(header, *(field.name for field in FIELDS if hasattr(header, field.name)))
    return {
        "kind": "codes",
        "file_size_bytes": header.file_size,
        "packed_size_bytes": header.packed_size,
        **_fields(header, "duration_s", "bits_per_second", "nominal_bits_per_second", "n_codes"),
        "frame_rate": header.sample_rate / header.hop_length,
        **stored,
        "method": METHODS[header.method],
        "fingerprint": header.fingerprint.hex(),
        "model": maker(header.fingerprint) or pulled(header.fingerprint),
        "speaker": header.speaker if isinstance(header.speaker, str) else None,
        **{one.kind: _describe_stream(one, header) for one in header.streams},
    }


def _describe_stream(record: StreamRecord, header: Header) -> dict[str, Any]:
    symbol_rate = header.sample_rate / header.hop_length / record.codes_per_symbol
    return {
        "symbol_rate": symbol_rate,
        "nominal_bits_per_second": symbol_rate * record.bits_per_symbol,
        "alphabet_size": record.alphabet_size,
        "step_cents": record.step,
        "mean_hz": round(record.reference, 2),
    }


def _fields(record: object, *names: str) -> dict[str, Any]:
    return {name: getattr(record, name) for name in names}
