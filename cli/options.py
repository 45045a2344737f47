"""The option types that commands share, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vqcodec.errors import VqcodecError
from vqcodec.models import DecoderChoice
from vqcodec.models import Melody as Choice

if TYPE_CHECKING:
    from vqcodec.codec import Codec

DeviceName = Literal["auto", "cpu", "cuda"]


def model_option(default: str) -> Any:
    """The option for a model that may be left out."""
    return typer.Option(
        metavar="NAME|FILE",
        help="A packaged model, a .safetensors file, or hf://OWNER/NAME.",
        show_default=default,
    )


def voice_option(help: str, default: str | None = None) -> Any:
    """The option for a voice; without a default it must be given."""
    return typer.Option(metavar="NAME|FILE", help=help, show_default=default or False)


def _melody(text: str) -> Choice:
    """A melody, or an error in the arguments before hours of work."""
    from vqcodec.models.interfaces import read_melody

    try:
        return read_melody(text)
    except VqcodecError as error:
        raise typer.BadParameter(str(error)) from None


Device = Annotated[DeviceName, typer.Option(help="Where to compute; auto: a GPU if there is one.")]
Model = Annotated[str | None, model_option("speech-1k")]
ModelOfCodes = Annotated[str | None, model_option("the packaged one that made the codes")]
OtherVoice = Annotated[
    str | None, voice_option("Another voice, by name or from a recording.", "the codes' own")
]
Corpus = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER|MANIFEST", help="VCTK, LibriSpeech, SPEAKER/NAME.wav, or a manifest.csv."
    ),
]
Report = Annotated[
    Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where the report goes.")
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
    typer.Option(
        "--refine",
        help="Search for codes that decode better; takes seconds for each second of sound.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Do not say what was made.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1, help="Files at a time, each on one core.", show_default="one per available core"
    ),
]
SampleRate = Annotated[
    int | None,
    typer.Option(
        min=1000,
        max=768_000,
        help="Sample rate of the result, in Hz.",
        show_default="the recording's own",
    ),
]
Decoder = Annotated[
    DecoderChoice,
    typer.Option(
        help="fast: parallel; wavenet: sample by sample; auto: the better by the model's measures."
    ),
]
Pitch = Annotated[
    float,
    typer.Option(
        min=-24, max=24, metavar="SEMITONES", help="Make the voice higher, or lower if negative."
    ),
]
Melody = Annotated[
    Any,  # Typer takes no unions
    typer.Option(
        parser=_melody,
        metavar="keep|flat|FACTOR",
        help="What becomes of the rise and fall of the voice; a factor of 2 doubles it.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the WaveNet's draws.")]
Temperature = Annotated[
    float,
    typer.Option(min=0, help="Temperature of the WaveNet's draws; lower is cleaner and duller."),
]


def files_at_a_time(jobs: int | None) -> int:
    """How many files to work on at a time: as the user says, or one for each available core."""
    if jobs is not None:
        return jobs
    from vqcodec.inference.chunking import available_cores

    return available_cores()


def is_gpu(device: DeviceName) -> bool:
    """Whether that is, or finds, a GPU."""
    if device == "auto":
        from vqcodec.inference.engines import has_gpu

        return has_gpu()
    return device == "cuda"


def load_codec(
    model: str | None, voices: Path | Literal[False] | None, device: DeviceName
) -> Codec:
    """The codec that the common options ask for."""
    import vqcodec

    return vqcodec.load(model, device=device, voices=voices)
