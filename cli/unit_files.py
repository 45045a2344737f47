"""Units that another program has written, made audible by decode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from vqcodec_cli.batch import STREAM, Output, Plan, Work, check_target, naming, run, writable
from vqcodec_cli.display import OnProgress, warn_of_clipping

from vqcodec.errors import CodesError, VqcodecError
from vqcodec.files import AUDIO_SUFFIXES

if TYPE_CHECKING:
    from vqcodec.codec import Codec

UNIT_SUFFIXES = (".txt", ".jsonl", ".npy")


def is_units(source: str) -> bool:
    """Whether a source of `decode` is a file of units."""
    return Path(source).suffix.lower() in UNIT_SUFFIXES


def decode_units(
    sources: list[str],
    target: str | None,
    speaker: str | None,
    model: str | None,
    load: Callable[[str | None], Codec],
    *,
    force: bool,
    quiet: bool,
    **choices: Any,
) -> None:
    """Decode a file of units, in the voice of `speaker`, by `model`.

    The target is a sound file or `-`; of several recordings, or if it does not end as one, a
    folder, which gets a NAME.wav for each; when None, it lies beside the source. Where the units do
    not name their model, the default one is taken. Further choices are those of `Codec.decode_to`.
    Raises typer.Exit if one of several failed, which was reported.
    """
    if len(sources) > 1:
        raise typer.BadParameter("units are decoded one file at a time: name one, then the target")
    (source,) = sources
    if speaker is None:
        raise typer.BadParameter("units do not tell who speaks: give --speaker NAME|FILE")
    from vqcodec.inference.units import read_units

    found = read_units(source)
    names = _named(list(found), target, source)
    for path in names:
        if path != STREAM:
            check_target(path, force, is_audio=True)
    makers = {units.fingerprint for units in found.values()} - {None}
    if len(makers) > 1:
        raise CodesError(f"{source}: has units of {len(makers)} models; give each a file")
    (fingerprint,) = makers or {None}

    def start() -> Work:
        codec = _maker(source, fingerprint, model, load)
        voice = codec.speaker(speaker)

        def work(_: str, target: str, on_progress: OnProgress) -> Output:
            with naming(f"{source}: {names[target]}"):
                codes = codec.codes(found[names[target]].units, speaker=voice)
            clipped = codec.decode_to(writable(target), codes, on_progress=on_progress, **choices)
            warn_of_clipping(target, clipped, "another --speaker may be quieter")
            return Output(codes.duration_s)

        return work

    plan = Plan([(source, path) for path in names], is_one=len(names) == 1)
    run(plan, start, label="decoding", jobs=1, device="cpu", quiet=quiet)


def _maker(
    source: str, fingerprint: bytes | None, model: str | None, load: Callable[[str | None], Codec]
) -> Codec:
    """The codec that made units, or where they do not say the one that is to decode them."""
    from vqcodec.weights.registry import maker

    named = None if fingerprint is None else maker(fingerprint)
    codec = load(model or named)
    if fingerprint is not None and fingerprint != codec.fingerprint:
        raise CodesError(
            f"{source}: these units were made by model {fingerprint.hex()}, and {codec.name} "
            f"is {codec.fingerprint.hex()}: decode with the model that encoded (--model)"
        )
    return codec


def _named(names: list[str], target: str | None, source: str) -> dict[str, str]:
    """Sound file -> the recording that becomes it; their folders are made."""
    if target is None:
        target = str(Path(source).with_suffix(".wav" if len(names) == 1 else ""))
    is_file = target == STREAM or Path(target).suffix.lower() in AUDIO_SUFFIXES
    if is_file and not Path(target).is_dir():
        if len(names) > 1:
            raise VqcodecError(
                f"{target}: no folder, and {source} has {len(names)} recordings; name a folder"
            )
        return {target: names[0]}
    paths = {Path(target, f"{name}.wav"): name for name in names}
    if within := [path for path in paths if set(path.parents) & set(paths)]:
        raise VqcodecError(f"{source}: {within[0]} would be in a file; rename one of the two")
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    return {str(path): name for path, name in paths.items()}
