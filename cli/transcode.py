"""encode, decode, convert."""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vqcodec_cli.batch import AUDIO_SUFFIXES, STDIN, STREAM, Work, plan, readable, run, writable
from vqcodec_cli.display import OnProgress, compilation_notice, warn_of_clipping
from vqcodec_cli.options import (
    Decoder,
    DecoderName,
    Device,
    DeviceName,
    Force,
    Jobs,
    Model,
    ModelOfCodes,
    Refine,
    Seed,
    Temperature,
    Voices,
    load_codec,
)
from vqcodec_cli.unit_files import decode_units, is_units

if TYPE_CHECKING:
    from vqcodec.codec import Codec
    from vqcodec.codes import Codes
    from vqcodec.entropy import NgramTables
    from vqcodec.speakers import Speaker
    from vqcodec.streams import CodesStream

QUIETER = "make the recording quieter and encode it again"
Recordings = Annotated[str, typer.Argument(help="A recording, a folder of them, or -.")]


def encode(
    source: Recordings,
    target: Annotated[str, typer.Argument(help="A code file, a folder, or -.")],
    speaker: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="The voice that the codes name, or a recording of it.",
            show_default="the recording's own",
        ),
    ] = None,
    refine: Refine = False,
    model: Model = None,
    voices: Voices = None,
    device: Device = DeviceName.auto,
    jobs: Jobs = None,
    force: Force = False,
) -> None:
    """Make codes of recordings.

    A folder is done file by file; what exists already is left alone. From pipe to pipe (- -) a WAV
    is encoded while it is being made, which --refine cannot do; Ctrl-C ends the recording, and its
    codes are whole.

    Example: vqcodec encode in.wav out.codes
    """
    if refine:
        _refuse_live(source, target)
    todo = plan(source, target, suffixes=AUDIO_SUFFIXES, target_suffix=".codes", force=force)

    def start() -> Work:
        from vqcodec.live import open_live

        codec = load_codec(model, voices, device)
        voice = None if speaker is None else codec.speaker(speaker)

        def work(source: str, target: str, on_progress: OnProgress) -> None:
            if source == target == STREAM:
                with open_live(sys.stdin.buffer) as live:
                    stream = codec.stream_encode(live.blocks, live.sample_rate, speaker=voice)
                    stream.write(sys.stdout.buffer)
                return
            codes = codec.encode(
                readable(source), speaker=voice, refine=refine, on_progress=on_progress
            )
            _save(codes, target)

        return work

    run(todo, start, label="encoding", jobs=jobs)


def decode(
    source: Annotated[
        str, typer.Argument(help="A code file, a folder of them, a file of units, or -.")
    ],
    target: Annotated[
        str,
        typer.Argument(help="A .wav, .flac, .ogg, .opus or .mp3 file, a folder, or - (a WAV)."),
    ],
    speaker: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Another voice, by name or from a recording.",
            show_default="the codes' own",
        ),
    ] = None,
    decoder: Decoder = None,
    seed: Seed = 0,
    temperature: Temperature = 1.0,
    sample_rate: Annotated[
        int | None,
        typer.Option(
            min=1000, max=768_000, help="Of the result, in Hz.", show_default="the recording's own"
        ),
    ] = None,
    model: ModelOfCodes = None,
    voices: Voices = None,
    device: Device = DeviceName.auto,
    jobs: Jobs = None,
    force: Force = False,
) -> None:
    """Make recordings of codes, as long as the originals.

    Codes of a packaged model are decoded by it, others by the one that is given. A folder is done
    file by file; what exists already is left alone. From pipe to pipe (- -) live codes are decoded
    while they come. Units, a .txt, .jsonl or .npy as `units` writes them, need a --speaker; of
    several recordings they make a folder.

    Example: vqcodec decode in.codes out.wav --speaker p239
    """
    if is_units(source):
        return decode_units(
            source,
            target,
            speaker=speaker,
            model=model,
            voices=voices,
            device=device,
            force=force,
            decoder=None if decoder is None else decoder.value,
            seed=seed,
            temperature=temperature,
            sample_rate=sample_rate,
        )
    todo = plan(source, target, suffixes=(".codes",), target_suffix=".wav", force=force)

    def start() -> Work:
        from vqcodec.codes import Codes
        from vqcodec.live import write_live
        from vqcodec.model_paths import maker
        from vqcodec.streams import CodesStream

        loading = threading.Lock()

        @cache
        def loaded(name: str | None) -> Codec:
            return load_codec(name, voices, device)

        @cache
        def voice_in(codec: Codec) -> Speaker | None:
            return None if speaker is None else codec.speaker(speaker)

        tables = None if model is None else loaded(model).tables

        def work(source: str, target: str, on_progress: OnProgress) -> None:
            codes = _load(source, tables)
            metadata = codes.metadata if isinstance(codes, CodesStream) else codes
            with loading:  # of the files of a folder, the first to need a model loads it for all
                codec = loaded(model or maker(metadata.fingerprint))
                voice = voice_in(codec)
            choices: dict[str, Any] = {
                "speaker": voice,
                "decoder": None if decoder is None else decoder.value,
                "seed": seed,
                "temperature": temperature,
                "sample_rate": sample_rate,
            }
            with _announced(codec, decoder):
                if isinstance(codes, CodesStream) and target == STREAM:
                    rate = sample_rate or metadata.original_sample_rate
                    write_live(sys.stdout.buffer, codec.stream_decode(codes, **choices), rate)
                    return
                if isinstance(codes, CodesStream):
                    codes = Codes.collect(codes)
                clipped = codec.decode_to(
                    writable(target), codes, on_progress=on_progress, **choices
                )
            warn_of_clipping(target, clipped, QUIETER)

        return work

    run(todo, start, label="decoding", jobs=jobs)


def convert(
    source: Recordings,
    speaker: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="The new voice, by name or from a recording.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="A sound file, a folder, or - (a WAV).",
            show_default="in.SPEAKER.wav beside in.wav",
        ),
    ] = None,
    refine: Refine = False,
    decoder: Decoder = None,
    seed: Seed = 0,
    temperature: Temperature = 1.0,
    model: Model = None,
    voices: Voices = None,
    device: Device = DeviceName.auto,
    jobs: Jobs = None,
    force: Force = False,
) -> None:
    """Say the same in another voice.

    A folder is done file by file; what exists already is left alone. From pipe to pipe (- -o -) a
    WAV is converted while it is being made, which --refine cannot do.

    Example: vqcodec convert in.wav --speaker p239 -o out.wav
    """
    target = output or _converted(source, speaker)
    if refine:
        _refuse_live(source, target)
    todo = plan(source, target, suffixes=AUDIO_SUFFIXES, target_suffix=".wav", force=force)

    def start() -> Work:
        from vqcodec.live import open_live, write_live

        codec = load_codec(model, voices, device)
        voice = codec.speaker(speaker)
        own = None if codec.hears_speakers else voice

        def work(source: str, target: str, on_progress: OnProgress) -> None:
            choices: dict[str, Any] = {
                "speaker": voice,
                "decoder": None if decoder is None else decoder.value,
                "seed": seed,
                "temperature": temperature,
            }
            with _announced(codec, decoder):
                if source == target == STREAM:
                    with open_live(sys.stdin.buffer) as live:
                        codes = codec.stream_encode(live.blocks, live.sample_rate, speaker=own)
                        blocks = codec.stream_decode(codes, **choices)
                        write_live(sys.stdout.buffer, blocks, live.sample_rate)
                    return
                clipped = codec.decode_to(
                    writable(target),
                    codec.encode(
                        readable(source),
                        speaker=own,
                        refine=refine,
                        on_progress=lambda share: on_progress(share / 2),
                    ),
                    on_progress=lambda share: on_progress((1 + share) / 2),
                    **choices,
                )
            warn_of_clipping(target, clipped, QUIETER)

        return work

    run(todo, start, label="converting", jobs=jobs)
    if output is None and target != STREAM:
        typer.echo(target)


def _refuse_live(source: str, target: str) -> None:
    if source == target == STREAM:
        raise typer.BadParameter("--refine needs the whole recording: name a file, not - and -")


def _announced(codec: Codec, decoder: DecoderName | None) -> AbstractContextManager[None]:
    """Say when the sampler is being compiled, if the work needs it."""
    if (decoder or codec.decoders[0]) != DecoderName.wavenet or codec.device.type != "cpu":
        return nullcontext()
    return compilation_notice()


def _converted(source: str, speaker: str) -> str:
    """Default target: `in.p239.wav` beside `in.wav`, folder `in.p239` beside folder `in`."""
    if source == STREAM:
        return STREAM
    path = Path(source)
    voice = Path(speaker).stem if Path(speaker).is_file() else Path(speaker).name
    if path.is_dir():
        return f"{path.resolve()}.{voice}"
    return str(path.with_name(f"{path.stem}.{voice}.wav"))


def _save(codes: Codes, target: str) -> None:
    stream = writable(target)
    if isinstance(stream, str):
        codes.save(stream)
    else:
        stream.write(codes.to_bytes())
        stream.flush()


def _load(source: str, tables: NgramTables | None) -> Codes | CodesStream:
    from vqcodec.codes import Codes, read_pipe

    stream = readable(source)
    if isinstance(stream, str):
        return Codes.load(stream, tables=tables)
    return read_pipe(stream, STDIN, tables=tables)
