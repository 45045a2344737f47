"""The option types that commands share, and what they mean."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vqcodec.codec import Codec


class DeviceName(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class DecoderName(StrEnum):
    """The two decoders."""

    fast = "fast"
    wavenet = "wavenet"


Device = Annotated[DeviceName, typer.Option(help="Where to compute; auto: a GPU if there is one.")]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE",
        help="A packaged model or a .safetensors file.",
        show_default="speech-1k",
    ),
]
Voices = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Enrolled voices.",
        show_default="voices.json in the settings folder",
        exists=True,
        dir_okay=False,
    ),
]
Refine = Annotated[
    bool,
    typer.Option("--refine", help="Search for codes that decode better; slow."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Files at a time.", show_default="one per processor core"),
]
Decoder = Annotated[
    DecoderName | None,
    typer.Option(
        help="fast: parallel; wavenet: sample by sample.", show_default="the model's best"
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of the WaveNet's draws.")]
Temperature = Annotated[
    float,
    typer.Option(min=0, help="Of the WaveNet's draws; lower is cleaner and duller."),
]


def voices_path(voices: Path | None) -> Path:
    """Where enrolled voices are kept, unless the user says otherwise."""
    return voices or Path(typer.get_app_dir("vqcodec")) / "voices.json"


def load_codec(model: str | None, voices: Path | None, device: DeviceName) -> Codec:
    """The codec that the common options ask for; nobody need have been enrolled yet."""
    import vqcodec

    path = voices_path(voices)
    return vqcodec.load(model, device=device.value, voices=path if path.exists() else None)
