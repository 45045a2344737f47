"""enroll, and voices remove and rename: the voices that a user keeps."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from vqcodec_cli.display import progress_bar
from vqcodec_cli.options import Device, Force, Model, Voices, load_codec

from vqcodec.errors import SpeakerError

if TYPE_CHECKING:
    from vqcodec.weights.voices import VoicesFile

app = typer.Typer(help="Rename or remove enrolled voices; speakers lists all.")
Only = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="The model whose voice is meant.",
        show_default="every model that it is enrolled for",
    ),
]


def enroll(
    name: Annotated[str, typer.Argument(help="Name of the new voice.")],
    clips: Annotated[list[Path], typer.Argument(help="Recordings of one person.")],
    voices: Annotated[
        Path | None,
        typer.Option(
            "--voices",
            "-o",
            metavar="FILE",
            help="Where to keep the voice; other voices in it stay.",
            show_default="voices.json in the settings folder",
        ),
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Refine the voice on the recordings; it takes minutes.")
    ] = False,
    model: Model = None,
    device: Device = "auto",
    force: Force = False,
) -> None:
    """Make a voice from recordings of one person, half a minute or more.

    Example: vqcodec enroll anna anna1.wav anna2.wav
    """
    from vqcodec.audio import open_recording
    from vqcodec.weights.voices import VoicesFile, check_name, default_path

    check_name(name)
    recordings = [open_recording(clip) for clip in clips]
    path = voices or default_path()
    with progress_bar("enrolling") as on_progress:
        codec = load_codec(model, path if path.exists() else False, device)
        if name in codec.voices and not force:
            raise SpeakerError(f"{name}: is a voice already; add --force to replace it")
        voice = codec.enroll(name, recordings, tune=tune, on_progress=on_progress)
        VoicesFile(path).add(codec.fingerprint, voice)
    typer.echo(f"{name}: enrolled in {path} ({voice.info})")
    use = ["vqcodec", "convert", "in.wav", "--speaker", name]
    use += ["--voices", str(path)] if voices else []
    use += ["--model", model] if model else []
    typer.echo(f"use it: {shlex.join(use)}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="Name of an enrolled voice.")],
    voices: Voices = None,
    model: Only = None,
) -> None:
    """Forget an enrolled voice. Files of codes that name it then need another --speaker.

    Example: vqcodec voices remove anna
    """
    kept, models = _kept(name, voices, model)
    kept.remove(name, models)
    typer.echo(f"{name}: removed from {kept.path} ({_names(models)})")


@app.command()
def rename(
    old: Annotated[str, typer.Argument(help="Name of an enrolled voice.")],
    new: Annotated[str, typer.Argument(help="The new name.")],
    voices: Voices = None,
    model: Only = None,
) -> None:
    """Give an enrolled voice another name.

    Whoever decodes a file that names the voice by its old name is told the new one.

    Example: vqcodec voices rename anna annabel
    """
    from vqcodec.weights.voices import model_names, models_with

    kept, models = _kept(old, voices, model)
    if {*model_names(models)} & {*models_with(new, None)}:
        raise SpeakerError(f"{new}: is a packaged voice already; choose another name")
    kept.rename(old, new, models)
    typer.echo(f"{old}: renamed to {new} in {kept.path} ({_names(models)})")


def _kept(name: str, voices: Path | None, model: str | None) -> tuple[VoicesFile, list[bytes]]:
    """The file that an enrolled voice is in, and the models, or the one meant, whose it is."""
    from vqcodec.weights.registry import find, read_header
    from vqcodec.weights.voices import VoicesFile, default_path, models_with

    kept = VoicesFile(voices or default_path())
    models = kept.models(name)
    if models and model is not None:
        meant = read_header(find(model))
        if meant.fingerprint not in models:
            raise SpeakerError(f"{name}: is enrolled for {_names(models)}, not for {meant.name}")
        models = [meant.fingerprint]
    if not models and (packaged := models_with(name, None)):
        raise SpeakerError(
            f"{name}: is a voice of {', '.join(packaged)} as packaged, and stays; only enrolled "
            "voices can be renamed or removed"
        )
    if not models:
        raise SpeakerError(
            f"{name}: is not enrolled in {kept.path}, which has {', '.join(kept.names()) or 'none'}"
        )
    return kept, models


def _names(models: list[bytes]) -> str:
    from vqcodec.weights.voices import model_names

    return ", ".join(model_names(models))
