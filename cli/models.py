"""models and speakers: what there is to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from vqcodec_cli.display import show
from vqcodec_cli.options import Json, Model, Voices, voices_path

if TYPE_CHECKING:
    from vqcodec.checkpoint import Checkpoint


def models(as_json: Json = False) -> None:
    """List the packaged models.

    Example: vqcodec models --json
    """
    from vqcodec import checkpoint
    from vqcodec.model_paths import packaged

    found = [describe(checkpoint.load(name), path) for name, path in packaged().items()]
    if not found and not as_json:
        typer.echo("no packaged models; train one: vqcodec train --help")
    show(found, as_json=as_json)


def speakers(model: Model = None, voices: Voices = None, as_json: Json = False) -> None:
    """List the voices of a model, enrolled ones included.

    Example: vqcodec speakers
    """
    from vqcodec import checkpoint
    from vqcodec.speakers import VoicesFile

    loaded = checkpoint.load(model)
    enrolled = VoicesFile(voices_path(voices)).voices(loaded.fingerprint)
    names = sorted({*loaded.voices, *enrolled})
    if as_json:
        show([{"name": name, "enrolled": name in enrolled} for name in names], as_json=True)
        return
    for name in names:
        typer.echo(f"{name} (enrolled)" if name in enrolled else name)


def describe(loaded: Checkpoint, path: Path) -> dict[str, Any]:
    """What a model is, in a form that JSON can hold."""
    config = loaded.config
    quantizer = config.quantizer
    frame_rate = config.sample_rate / config.hop_length
    bits_per_code = (quantizer.codebook_size - 1).bit_length()
    decoders = {"fast": config.fast, "wavenet": config.wavenet}
    return {
        "name": loaded.name,
        "path": str(path),
        "size_bytes": path.stat().st_size,
        "fingerprint": loaded.fingerprint.hex(),
        "sample_rate": config.sample_rate,
        "frame_rate": frame_rate,
        "bits_per_second": frame_rate * bits_per_code * quantizer.n_codebooks,
        "codebook_size": quantizer.codebook_size,
        "n_codebooks": quantizer.n_codebooks,
        "quantizer": quantizer.kind,
        "decoders": [name for name, part in decoders.items() if part is not None],
        "speaker": config.speaker.kind,
        "n_voices": len(loaded.voices),
        # The whole recipe would bury the licence and the figures.
        "provenance": {
            key: value
            for key, value in loaded.provenance.items()
            if not isinstance(value, dict | list)
        },
    }
