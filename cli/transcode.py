"""encode, decode, convert."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from vqcodec_cli import options as opt
from vqcodec_cli.batch import (
    CODES_SUFFIXES,
    STDIN,
    STREAM,
    Output,
    Planner,
    Work,
    readable,
    run,
    sources_and_target,
    writable,
)
from vqcodec_cli.display import OnProgress, warn_of_clipping
from vqcodec_cli.options import load_codec
from vqcodec_cli.unit_files import UNIT_SUFFIXES, decode_units, is_units

from vqcodec.errors import VqcodecError
from vqcodec.files import AUDIO_SUFFIXES

if TYPE_CHECKING:
    from vqcodec.codec import Codec
    from vqcodec.format.codes import Codes
    from vqcodec.format.ngram_coder import NgramModel
    from vqcodec.format.streaming import CodesStream
    from vqcodec.weights.voices import Speaker

LARGEST_AHEAD = 1 << 15  # bytes: four minutes

Recordings = Annotated[
    list[str],
    typer.Argument(
        metavar="RECORDING... [TARGET]",
        help="Recordings, folders of them, or -; then, if not beside them, where the codes "
        "go: a .codes file, a folder, or -.",
    ),
]
CodeFiles = Annotated[
    list[str],
    typer.Argument(
        metavar="CODES... [TARGET]",
        help="Code files, folders of them, units, or -; then, if not beside them, where the "
        "sound goes: a .wav, .flac, .ogg, .opus or .mp3 file, a folder, or - (a WAV).",
    ),
]
NamedVoice = Annotated[
    str | None,
    opt.voice_option("The voice that the codes name, or a recording of it.", "the recording's own"),
]
Converted = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="A sound file, a folder, or - (a WAV).",
        show_default="in.SPEAKER.wav beside in.wav",
    ),
]


def encode(
    paths: Recordings,
    speaker: NamedVoice = None,
    refine: opt.Refine = False,
    model: opt.Model = None,
    voices: opt.Voices = None,
    device: opt.Device = "auto",
    jobs: opt.Jobs = None,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> None:
    """Make codes of recordings.

    The codes of in.wav go to in.codes beside it, unless the last argument says where: it does if
    it ends in .codes, is - or a folder, or does not exist and does not end as a sound file does.
    Of several recordings, or of a folder, what exists already is left alone. From pipe to pipe
    (- -) a WAV is encoded while it is being made, which --refine cannot do; Ctrl-C ends the
    recording, and its codes are whole.

    Example: vqcodec encode in.wav out.codes
    """
    sources, target = sources_and_target(paths, AUDIO_SUFFIXES, CODES_SUFFIXES)
    todo = Planner(AUDIO_SUFFIXES, ".codes", force).plan(sources, target)
    _refuse_live(todo.pairs, refine)

    def start() -> Work:
        codec = load_codec(model, voices, device)
        voice = None if speaker is None else codec.speaker(speaker)

        def work(source: str, target: str, on_progress: OnProgress) -> Output | None:
            with _encoded(codec, source, target, voice, refine, on_progress) as codes:
                return _save(codes, target)

        return work

    run(todo, start, label="encoding", jobs=jobs, device=device, quiet=quiet)


def decode(
    paths: CodeFiles,
    speaker: opt.OtherVoice = None,
    decoder: opt.Decoder = "auto",
    seed: opt.Seed = 0,
    temperature: opt.Temperature = 1.0,
    sample_rate: opt.SampleRate = None,
    pitch: opt.Pitch = 0.0,
    melody: opt.Melody = "keep",
    model: opt.ModelOfCodes = None,
    voices: opt.Voices = None,
    device: opt.Device = "auto",
    jobs: opt.Jobs = None,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> None:
    """Make recordings of codes, as long as the originals.

    The sound of in.codes goes to in.wav beside it, unless the last argument says where: it does
    if it ends as a sound file does, is - or a folder, or does not exist and does not end in
    .codes. Codes of a packaged model are decoded by it, others by the one that is given. Of
    several code files, or of a folder, what exists already is left alone. From pipe to pipe (- -)
    live codes are decoded while they come. Units, a .txt, .jsonl or .npy as `units` writes them,
    need a --speaker; of several recordings they make a folder.

    Example: vqcodec decode in.codes out.wav --speaker p239
    """
    load = cache(partial(load_codec, voices=voices, device=device))
    choices: dict[str, Any] = {"decoder": decoder, "seed": seed, "temperature": temperature}
    choices |= {"sample_rate": sample_rate, "pitch": pitch, "melody": melody}
    sources, target = sources_and_target(paths, (*CODES_SUFFIXES, *UNIT_SUFFIXES), AUDIO_SUFFIXES)
    if any(map(is_units, sources)):
        return decode_units(
            sources, target, speaker, model, load, force=force, quiet=quiet, **choices
        )
    if target is None and any(Path(source).is_dir() for source in sources):
        # Beside the codes there may be the recordings that they were made of.
        raise typer.BadParameter("the sound of a folder needs one of its own: name it last")
    todo = Planner(CODES_SUFFIXES, ".wav", force).plan(sources, target)
    held: dict[str, Codes] = {}

    def known_tables() -> NgramModel | None:
        return None if model is None else load(model).tables

    def start() -> Work:
        from vqcodec.format.streaming import metadata_of
        from vqcodec.models import AUTOREGRESSIVE
        from vqcodec.weights.registry import DEFAULT_MODEL, maker

        @cache
        def voice_in(codec: Codec) -> Speaker | None:
            return None if speaker is None else codec.speaker(speaker)

        tables = known_tables()
        if len(todo.pairs) > 1 and (decoder in AUTOREGRESSIVE or model is not None):
            _compile_ahead(load(model or DEFAULT_MODEL), decoder)  # which is the same for any model

        def work(source: str, target: str, on_progress: OnProgress) -> Output | None:
            codes = held.pop(source, None) or _load(source, tables)
            codec = load(model or maker(metadata_of(codes).fingerprint))
            voice = voice_in(codec)
            return _decoded(codec, codes, target, on_progress, speaker=voice, **choices)

        return work

    ahead = partial(_load_together, held, known_tables)
    run(todo, start, label="decoding", jobs=jobs, device=device, quiet=quiet, ahead=ahead)


def convert(
    sources: Annotated[
        list[str], typer.Argument(metavar="RECORDING...", help="Recordings, folders of them, or -.")
    ],
    speaker: Annotated[str, opt.voice_option("The new voice, by name or from a recording.")],
    output: Converted = None,
    refine: opt.Refine = False,
    decoder: opt.Decoder = "auto",
    seed: opt.Seed = 0,
    temperature: opt.Temperature = 1.0,
    sample_rate: opt.SampleRate = None,
    pitch: opt.Pitch = 0.0,
    melody: opt.Melody = "keep",
    model: opt.Model = None,
    voices: opt.Voices = None,
    device: opt.Device = "auto",
    jobs: opt.Jobs = None,
    force: opt.Force = False,
    quiet: opt.Quiet = False,
) -> None:
    """Say the same in another voice.

    The results of a folder in go to a folder in.SPEAKER. Of several recordings, or of a folder,
    what exists already is left alone. From pipe to pipe (- -o -) a WAV is converted while it is
    being made, which --refine cannot do.

    Example: vqcodec convert in.wav --speaker p239 -o out.wav
    """
    name = Path(speaker).stem if Path(speaker).is_file() else Path(speaker).name
    planner = Planner(AUDIO_SUFFIXES, ".wav", force, mark=f".{name}")
    todo = planner.plan(sources, output or _converted(sources, name))
    _refuse_live(todo.pairs, refine)
    choices: dict[str, Any] = {"decoder": decoder, "seed": seed, "temperature": temperature}
    choices |= {"sample_rate": sample_rate, "pitch": pitch, "melody": melody}

    def start() -> Work:
        from vqcodec.models.interfaces import DecodeOptions

        codec = load_codec(model, voices, device)
        voice = codec.speaker(speaker)
        codec.check_options(DecodeOptions(**choices), voice)
        own = None if codec.hears_speakers else voice
        if len(todo.pairs) > 1:
            _compile_ahead(codec, decoder)

        def work(source: str, target: str, on_progress: OnProgress) -> Output | None:
            halves = [
                lambda share: on_progress(share / 2),
                lambda share: on_progress((1 + share) / 2),
            ]
            with _encoded(codec, source, target, own, refine, halves[0]) as codes:
                return _decoded(codec, codes, target, halves[1], speaker=voice, **choices)

        return work

    run(todo, start, label="converting", jobs=jobs, device=device, quiet=quiet)


def _refuse_live(pairs: list[tuple[str, str]], refine: bool) -> None:
    if refine and (STREAM, STREAM) in pairs:
        raise typer.BadParameter("--refine needs the whole recording: name a file, not - and -")


@contextmanager
def _encoded(
    codec: Codec,
    source: str,
    target: str,
    speaker: Speaker | None,
    refine: bool,
    on_progress: OnProgress,
) -> Iterator[Codes | CodesStream]:
    """The codes of a recording; from pipe to pipe, those of what is heard so far."""
    if source == target == STREAM:
        from vqcodec.audio.live import open_live

        with open_live(sys.stdin.buffer) as live:
            yield codec.stream_encode(live.blocks, live.sample_rate, speaker=speaker)
    else:
        yield codec.encode(
            readable(source), speaker=speaker, refine=refine, on_progress=on_progress
        )


def _decoded(
    codec: Codec,
    codes: Codes | CodesStream,
    target: str,
    on_progress: OnProgress,
    *,
    decoder: opt.Decoder,
    sample_rate: int | None,
    **choices: Any,
) -> Output | None:
    """Write the sound of codes; from pipe to pipe, while they come."""
    from vqcodec.audio.live import write_live
    from vqcodec.format.codes import Codes
    from vqcodec.format.streaming import CodesStream, metadata_of

    rate = sample_rate or _held_rate(target, metadata_of(codes).original_sample_rate)
    choices |= {"decoder": decoder, "sample_rate": rate}
    with _announced(codec, decoder):
        if isinstance(codes, CodesStream):
            if target == STREAM:
                write_live(sys.stdout.buffer, codec.stream_decode(codes, **choices), rate)
                return None
            codes = Codes.collect(codes)
        clipped = codec.decode_to(writable(target), codes, on_progress=on_progress, **choices)
    warn_of_clipping(target, clipped, "make the recording quieter and encode it again")
    return Output(codes.duration_s)


def _held_rate(target: str, sample_rate: int) -> int:
    """The rate that a target of this name can have, if it cannot have that of the recording."""
    from vqcodec.audio.writing import nearest_rate

    if target == STREAM:
        return sample_rate
    nearest = nearest_rate(target, sample_rate)
    if nearest != sample_rate:
        typer.echo(
            f"vqcodec: {target}: cannot hold the {sample_rate} Hz of the recording; it has "
            f"{nearest} Hz",
            err=True,
        )
    return nearest


def _announced(codec: Codec, decoder: opt.Decoder) -> AbstractContextManager[None]:
    """Say on stderr when the sampler is being compiled, lest it be taken for a hang."""
    from vqcodec.inference.wavenet import announced

    told = "compiling the sampler for this processor, once: some seconds"
    return announced(codec.decoder(decoder), codec.device, lambda: typer.echo(told, err=True))


def _compile_ahead(codec: Codec, decoder: opt.Decoder) -> None:
    """Have the sampler compiled before processes are forked, each of which would do so."""
    from vqcodec.inference.wavenet import compile_sampler
    from vqcodec.models import AUTOREGRESSIVE

    if codec.decoder(decoder) in AUTOREGRESSIVE and codec.device == "cpu":
        with _announced(codec, decoder):
            compile_sampler(codec.engine)


def _converted(sources: list[str], voice: str) -> str | None:
    """Default target of a folder `in`: a folder `in.p239`, beside it."""
    folders = [source for source in sources if Path(source).is_dir()]
    if folders and len(sources) > 1:
        raise typer.BadParameter(f"{folders[0]}: is a folder among others; name a target with -o")
    return f"{Path(folders[0]).resolve()}.{voice}" if folders else None


def _save(codes: Codes | CodesStream, target: str) -> Output | None:
    """Write codes; from pipe to pipe, as they come."""
    from vqcodec.format.streaming import CodesStream

    if isinstance(codes, CodesStream):
        codes.write(sys.stdout.buffer)
        return None
    stream = writable(target)
    if isinstance(stream, str):
        return Output(codes.duration_s, codes.save(stream))
    data = codes.to_bytes()
    stream.write(data)
    stream.flush()
    return Output(codes.duration_s, len(data))


def _load(source: str, tables: NgramModel | None) -> Codes | CodesStream:
    from vqcodec.format.codes import Codes, read_pipe

    stream = readable(source)
    if isinstance(stream, str):
        return Codes.load(stream, tables=tables)
    return read_pipe(stream, STDIN, tables=tables)


def _load_together(
    held: dict[str, Codes],
    known_tables: Callable[[], NgramModel | None],
    pairs: Sequence[tuple[str, str]],
) -> None:
    """Hold the codes of short files, and no others, decoded faster than one by one."""
    from vqcodec.format.codes import Codes, decode_together

    tables = known_tables()
    held.clear()
    for source, _ in pairs:
        with suppress(VqcodecError, OSError):
            # Long files have chunks enough of their own, and a pipe is read but once.
            if os.path.isfile(source) and os.path.getsize(source) <= LARGEST_AHEAD:
                held[source] = Codes.load(source, tables=tables)
    decode_together(held.values())
