"""Units that another program has written, made audible by decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from vqcodec_cli.batch import AUDIO_SUFFIXES, STREAM, Made, check_target, show_counts, writable
from vqcodec_cli.display import progress_bar, warn_of_clipping
from vqcodec_cli.errors import message
from vqcodec_cli.options import DeviceName, load_codec

# As `vqcodec.inference.units.UNIT_SUFFIXES`, which takes time to import.
UNIT_SUFFIXES = (".txt", ".jsonl", ".npy")


def is_units(source: str) -> bool:
    """Whether a source of `decode` is a file of units."""
    return Path(source).suffix.lower() in UNIT_SUFFIXES


def decode_units(
    sources: list[str],
    target: str | None,
    *,
    speaker: str | None,
    model: str | None,
    voices: Path | None,
    device: DeviceName,
    force: bool,
    quiet: bool,
    **choices: Any,
) -> None:
    """Decode a file of units.

    Args:
        sources: one .txt, .jsonl or .npy.
        target: a sound file or -; of several recordings, or if it does not end as one, a folder,
            which gets a NAME.wav for each; beside the source when None.
        speaker: who says it.
        model: as of `decode`; where the units do not name theirs, the default one.
        voices: as of `decode`.
        device: as of `decode`.
        force: overwrite what exists.
        quiet: say nothing of what was made.
        choices: for `Codec.decode_to`.

    Raises:
        typer.BadParameter: there is no speaker, or another source.
        typer.Exit: one of several failed, and was reported.
        VqcodecError: the units cannot be read or are of another model, or the target written.
    """
    if len(sources) > 1:
        raise typer.BadParameter("units are decoded one file at a time: name one, then the target")
    (source,) = sources
    if speaker is None:
        raise typer.BadParameter("units do not tell who speaks: give --speaker NAME|FILE")
    from vqcodec.errors import CodesError
    from vqcodec.inference.units import read_units
    from vqcodec.weights.registry import maker

    found = read_units(source)
    targets = _targets(list(found), target, source)
    for path in targets.values():
        if path != STREAM:
            check_target(path, force, is_audio=True)
    makers = {units.fingerprint for units in found.values()} - {None}
    if len(makers) > 1:
        raise CodesError(f"{source}: has units of {len(makers)} models; give each a file")
    (fingerprint,) = makers or {None}
    with progress_bar("decoding") as on_progress:
        named = None if fingerprint is None else maker(fingerprint)
        codec = load_codec(model or named, voices, device)
        if fingerprint not in (None, codec.fingerprint):
            raise CodesError(
                f"{source}: these units were made by model {fingerprint.hex()}, and {codec.name} "
                f"is {codec.fingerprint.hex()}: decode with the model that encoded (--model)"
            )
        voice, n_failed = codec.speaker(speaker), 0
        for n_done, (name, path) in enumerate(targets.items(), 1):
            try:
                codes = codec.codes(found[name].units, speaker=voice)
            except CodesError as error:
                n_failed += 1
                fault = f"{source}: {name}: {error}"
                if len(found) == 1:
                    raise CodesError(fault) from None
                typer.echo(f"vqcodec: {message(CodesError(fault))}", err=True)
                continue
            clipped = codec.decode_to(writable(path), codes, **choices)
            warn_of_clipping(path, clipped, "another --speaker may be quieter")
            on_progress(n_done / len(targets))
    if not quiet and len(found) > 1:
        show_counts(len(found) - n_failed, 0, n_failed)
    elif not quiet and path != STREAM:
        typer.echo(f"{source} → {path}  {Made(codes.duration_s)}")
    if n_failed:
        raise typer.Exit(1)


def _targets(names: list[str], target: str | None, source: str) -> dict[str, str]:
    """Name of a recording -> the sound file that it becomes; their folders are made."""
    from vqcodec.errors import VqcodecError

    if target is None:
        target = str(Path(source).with_suffix(".wav" if len(names) == 1 else ""))
    is_file = target == STREAM or Path(target).suffix.lower() in AUDIO_SUFFIXES
    if is_file and not Path(target).is_dir():
        if len(names) > 1:
            raise VqcodecError(
                f"{target}: no folder, and {source} has {len(names)} recordings; name a folder"
            )
        return {names[0]: target}
    targets = {name: Path(target, f"{name}.wav") for name in names}
    if within := [path for path in targets.values() if set(path.parents) & set(targets.values())]:
        raise VqcodecError(f"{source}: {within[0]} would be in a file; rename one of the two")
    for path in targets.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    return {name: str(path) for name, path in targets.items()}
