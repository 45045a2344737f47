"""sample and score: what the prior of a model makes, and what it makes of recordings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from vqcodec_cli import options as opt
from vqcodec_cli.batch import STREAM, check_target, readable, writable
from vqcodec_cli.display import message, progress_bar, show, warn_of_clipping
from vqcodec_cli.options import load_codec

from vqcodec.errors import SpeakerError

if TYPE_CHECKING:
    from vqcodec import Codec, Codes, Speaker


PriorFile = Annotated[
    Path | None,
    typer.Option(
        "--prior",
        metavar="FILE",
        help="A prior that was trained on the model's codes.",
        show_default="the model's packaged one",
        exists=True,
        dir_okay=False,
    ),
]
Scheme = Annotated[
    Literal["prior", "histogram", "uniform"],
    typer.Option(
        help="prior: each code given those before; histogram: each as often as in training; "
        "uniform: all equally often."
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="A recording, or -, to begin with and to continue."),
]
NewVoice = Annotated[
    str | None,
    opt.voice_option(
        "The voice, by name or from a recording.", "the prompt's, or else the model's first"
    ),
]


def sample(
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="A sound file, or - (a WAV).")
    ],
    speaker: NewVoice = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, max=86_400, help="Length of the new speech.")
    ] = 10.0,
    scheme: Scheme = "prior",
    temperature: Annotated[
        float, typer.Option(min=0, help="Temperature of the draws; lower is safer and duller.")
    ] = 1.0,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1, help="Draw among this many of the likeliest codes.", show_default="all"
        ),
    ] = None,
    top_p: Annotated[
        float,
        typer.Option(
            min=1e-6,
            max=1,
            help="Draw among the likeliest codes that have this probability together.",
        ),
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draws.")] = 0,
    prompt: Prompt = None,
    prior: PriorFile = None,
    model: opt.Model = None,
    voices: opt.Voices = None,
    device: opt.Device = "auto",
    force: opt.Force = False,
) -> None:
    """Make up speech: babble in a voice, or what may follow a recording.

    Example: vqcodec sample --speaker p239 --seconds 5 -o out.wav
    """
    from vqcodec.prior import load

    if output != STREAM:
        check_target(output, force, is_audio=True)
    with progress_bar("sampling") as on_progress:
        codec = load_codec(model, voices, device)
        loaded = load(codec, prior)
        voice = None if speaker is None else codec.speaker(speaker)
        begun = None if prompt is None else codec.encode(readable(prompt), speaker=voice)
        codes = loaded.sample(
            seconds,
            speaker=voice or _default_voice(codec, begun),
            scheme=scheme,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            prompt=begun,
            on_progress=on_progress,
        )
        clipped = codec.decode_to(writable(output), codes)
    if output != STREAM:
        typer.echo(f"→ {output}  {codes.duration_s:.2f} s")
    warn_of_clipping(output, clipped, "try another --seed, or a quieter --prompt")


def score(
    files: Annotated[list[str], typer.Argument(help="Recordings.")],
    speaker: Annotated[
        str | None,
        opt.voice_option(
            "Who speaks, by name or from another recording.", "as each recording sounds"
        ),
    ] = None,
    prior: PriorFile = None,
    model: opt.Model = None,
    voices: opt.Voices = None,
    device: opt.Device = "auto",
    as_json: opt.Json = False,
) -> None:
    """Say how unlike speech recordings are.

    The anomaly, from 0 to 1, is the distance between the distribution of a recording's bits per
    code and that of speech: monotonous sounds have fewer bits per code, chaotic ones more.

    Example: vqcodec score in.wav
    """
    from vqcodec.prior import load

    codec = load_codec(model, voices, device)
    loaded = load(codec, prior)
    voice = None if speaker is None else codec.speaker(speaker)
    results = []
    for file in files:
        try:
            score = loaded.score(codec.encode(file, speaker=voice))
        except Exception as error:
            if len(files) == 1:
                raise
            typer.echo(f"vqcodec: {message(error)}", err=True)
            continue
        results.append({"file": file, **score._asdict()})
        if not as_json:
            typer.echo(
                f"{score.bits_per_code:.3f} bits per code  anomaly {score.anomaly:.2f}  {file}"
            )
    if as_json:
        show(results, as_json=True)
    if len(results) < len(files):
        raise typer.Exit(1)


def _default_voice(codec: Codec, prompt: Codes | None) -> Speaker:
    """The prompt's own, or else the codec's first."""
    from vqcodec import Speaker

    if prompt is not None:
        assert not isinstance(prompt.speaker, str), "it was encoded without a name"
        return Speaker(prompt.speaker)
    if not codec.voices:
        raise SpeakerError(f"{codec.name}: knows no voice by name: say whose with --speaker FILE")
    return codec.voices[min(codec.voices)]
