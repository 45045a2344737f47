"""models and speakers: what there is to choose from; model push and pull: the hub."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vqcodec_cli.display import show
from vqcodec_cli.options import Json, Model, Voices

from vqcodec.errors import CheckpointError

if TYPE_CHECKING:
    from vqcodec.weights.registry import ModelHeader
    from vqcodec.weights.voices import VoiceInfo

app = typer.Typer(help="Models on the Hugging Face Hub.")
HubName = Annotated[str, typer.Argument(metavar="hf://OWNER/NAME", help="Its name on the hub.")]


@app.command()
def pull(name: HubName) -> None:
    """Fetch a model into the cache of huggingface_hub, where it is found without a network.

    Add @REVISION for a branch, a tag or a commit. What is printed names the commit that came.

    Example: vqcodec model pull hf://anna/voices
    """
    from vqcodec.weights import hub, model_file

    path = hub.fetch(name)
    model_file.read(path).weights()
    typer.echo(f"{hub.pinned(path)} → {path}")


@app.command()
def push(
    model: Annotated[str, typer.Argument(metavar="NAME|FILE", help="The model.")], name: HubName
) -> None:
    """Put a model on the hub, with a model card that its file tells; you must be logged in.

    The repository is public, unless you have made a private one of that name before. The file goes
    as it is, with the recipe that it was trained by.

    Example: vqcodec model push runs/mine/model.safetensors hf://anna/voices
    """
    from vqcodec.weights import hub, model_file
    from vqcodec.weights.model_card import model_card
    from vqcodec.weights.registry import find, read_header

    path = find(model)
    model_file.read(path).weights()
    typer.echo(f"{model} → {hub.push(path, name, model_card(read_header(path), name))}")


def models(as_json: Json = False) -> None:
    """List the packaged models; vqcodec info NAME says all that is known of one.

    Codes in a second, how many there are to choose from, decoders, size of the file.

    Example: vqcodec models
    """
    from vqcodec.weights.registry import packaged, read_header

    found = [describe(read_header(path)) for path in packaged().values()]
    if as_json:
        show(found, as_json=True)
        return
    if not found:
        typer.echo("no packaged models; train one: vqcodec train --help")
    width = max((len(one["name"]) for one in found), default=0)
    for one in found:
        codes = f"{one['frame_rate']:>3g} codes/s of {one['codebook_size']}"
        size = f"{one['size_bytes'] / 1e6:4.1f} MB"
        typer.echo(f"{one['name']:<{width}}  {codes:<19}  {size}  {', '.join(one['decoders'])}")


def speakers(model: Model = None, voices: Voices = None, as_json: Json = False) -> None:
    """List the voices of a model, enrolled ones included, and what is known of them.

    Sex, mean pitch, seconds of sound that were heard, where they are from, and accent.

    Example: vqcodec speakers
    """
    from vqcodec.weights.registry import find, read_header
    from vqcodec.weights.voices import VoiceInfo, VoicesFile, default_path, voice_info

    header = read_header(find(model))
    enrolled = VoicesFile(voices or default_path()).voices(header.fingerprint)
    known = voice_info(header.provenance, header.fingerprint)
    found = {name: known.get(name, VoiceInfo()) for name in header.voices}
    found |= {name: voice.info for name, voice in enrolled.items()}
    if as_json:
        listed = [
            {"name": name, "enrolled": name in enrolled, **asdict(found[name])}
            for name in sorted(found)
        ]
        show(listed, as_json=True)
        return
    width = max(map(len, found), default=0)
    for name in sorted(found):
        typer.echo(f"{name:<{width}}  {columns(found[name])}".rstrip())


def columns(info: VoiceInfo) -> str:
    """What is known of a voice, as a row of a table; what is not leaves a gap."""
    pitch = "" if info.pitch_hz is None else f"{info.pitch_hz:.0f} Hz"
    seconds = "" if info.seconds is None else f"{info.seconds:.0f} s"
    origin = ", ".join(part for part in (info.source, info.accent) if part is not None)
    return f"{info.sex or '':<6}  {pitch:>6}  {seconds:>6}  {origin}"


def describe(header: ModelHeader) -> dict[str, Any]:
    """What a model is, in a form that JSON can hold."""
    from pydantic import ValidationError

    from vqcodec.models.config import ModelConfig
    from vqcodec.models.cost import latency_ms, part_costs
    from vqcodec.weights.hub import pinned
    from vqcodec.weights.measures import best_first

    try:
        config = ModelConfig.model_validate_json(header.config)
    except ValidationError as error:
        fault = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{header.path}: its configuration is damaged: {fault}") from None
    quantizer = config.quantizer
    frame_rate = config.sample_rate / config.hop_length
    bits_per_code = (quantizer.codebook_size - 1).bit_length()
    costs = part_costs(config, header.shapes)
    decoders = best_first(config, header.provenance)
    return {
        "name": pinned(header.path) or header.name,
        "path": str(header.path),
        "size_bytes": header.path.stat().st_size,
        "fingerprint": header.fingerprint.hex(),
        "sample_rate": config.sample_rate,
        "frame_rate": frame_rate,
        "bits_per_second": frame_rate * bits_per_code * quantizer.n_codebooks,
        "codebook_size": quantizer.codebook_size,
        "n_codebooks": quantizer.n_codebooks,
        "quantizer": quantizer.kind,
        "decoders": list(decoders),
        "auto_decoder": decoders[0],
        "speaker": config.speaker.kind,
        "n_voices": len(header.voices),
        "cost": {part: cost._asdict() for part, cost in costs.items()},
        "latency_ms": latency_ms(config, costs),
        # The whole recipe would bury the licence and the figures.
        "provenance": {
            key: value
            for key, value in header.provenance.items()
            if not isinstance(value, dict | list)
        },
    }
