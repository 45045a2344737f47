"""enroll."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from vqcodec_cli.display import progress_bar
from vqcodec_cli.options import Device, DeviceName, Force, Model, load_codec, voices_path

SHORTEST_S = 10.0


def enroll(
    name: Annotated[str, typer.Argument(help="Of the new voice.")],
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
        bool, typer.Option("--tune", help="Refine the voice on the recordings; slower.")
    ] = False,
    model: Model = None,
    device: Device = DeviceName.auto,
    force: Force = False,
) -> None:
    """Make a voice from recordings of one person, half a minute or more.

    Example: vqcodec enroll anna anna1.wav anna2.wav
    """
    from vqcodec.audio import open_recording
    from vqcodec.errors import SpeakerError
    from vqcodec.speakers import VoicesFile, check_name

    check_name(name)
    recordings = [open_recording(clip) for clip in clips]
    seconds = sum(one.n_samples / one.sample_rate for one in recordings)
    if seconds < SHORTEST_S:
        typer.echo(
            f"vqcodec: only {seconds:.1f} s of {name}: the voice may be off; "
            f"half a minute is better",
            err=True,
        )
    path = voices_path(voices)
    with progress_bar("enrolling") as on_progress:
        codec = load_codec(model, path, device)
        if name in codec.voices and not force:
            raise SpeakerError(f"{name}: is a voice already; add --force to replace it")
        voice = codec.enroll(name, recordings, tune=tune, on_progress=on_progress)
        VoicesFile(path).add(codec.fingerprint, name, voice.vector)
    typer.echo(f"{name}: enrolled in {path}")
    use = ["vqcodec", "convert", "in.wav", "--speaker", name]
    use += ["--voices", str(path)] if voices else []
    use += ["--model", model] if model else []
    typer.echo(f"use it: {shlex.join(use)}")
