"""Units that another program has written, made audible by decode."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from vqcodec_cli.batch import (
    AUDIO_SUFFIXES,
    STREAM,
    Made,
    Plan,
    Work,
    check_target,
    finish,
    naming,
    run,
    run_all,
    writable,
)
from vqcodec_cli.display import OnProgress, warn_of_clipping
from vqcodec_cli.options import DeviceName, load_codec

if TYPE_CHECKING:
    from vqcodec.codec import Codec

# As `vqcodec.inference.units.UNIT_SUFFIXES`, which takes time to import.
UNIT_SUFFIXES = (".txt", ".jsonl", ".npy")


def is_units(source: str) -> bool:
    """Whether a source of `decode` is a file of units."""
    return Path(source).suffix.lower() in UNIT_SUFFIXES


def decode_units(
    sources: list[str],
    target: str | None,
    speaker: str | None,
    model: str | None,
    voices: Path | None,
    device: DeviceName,
    *,
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
    from vqcodec.inference.units import read_units

    found = read_units(source)
    targets = _targets(list(found), target, source)
    for path in targets.values():
        if path != STREAM:
            check_target(path, force, is_audio=True)
    names = {path: name for name, path in targets.items()}
    makers = {units.fingerprint for units in found.values()}

    def start() -> Work:
        codec = _maker(source, makers, model, voices, device)
        voice = codec.speaker(speaker)

        def work(_: str, target: str, on_progress: OnProgress) -> Made:
            name = names[target]
            with naming(f"{source}: {name}"):
                codes = codec.codes(found[name].units, speaker=voice)
            clipped = codec.decode_to(writable(target), codes, on_progress=on_progress, **choices)
            warn_of_clipping(target, clipped, "another --speaker may be quieter")
            return Made(codes.duration_s)

        return work

    pairs = [(source, path) for path in names]
    if len(pairs) == 1:
        plan = Plan(pairs, 0, is_one=True)
        run(plan, start, label="decoding", jobs=1, device=device, quiet=quiet)
    else:
        made = run_all(pairs, start, "decoding", n_jobs=1)
        finish(len(made), 0, len(pairs) - len(made), quiet=quiet)


def _maker(
    source: str,
    fingerprints: set[bytes | None],
    model: str | None,
    voices: Path | None,
    device: DeviceName,
) -> Codec:
    """The codec that made units, or that is to be taken for it where they do not say."""
    from vqcodec.errors import CodesError
    from vqcodec.weights.registry import maker

    named = fingerprints - {None}
    if len(named) > 1:
        raise CodesError(f"{source}: has units of {len(named)} models; give each a file")
    (fingerprint,) = named or {None}
    codec = load_codec(model or (fingerprint and maker(fingerprint)), voices, device)
    if fingerprint not in (None, codec.fingerprint):
        raise CodesError(
            f"{source}: these units were made by model {fingerprint.hex()}, and {codec.name} "
            f"is {codec.fingerprint.hex()}: decode with the model that encoded (--model)"
        )
    return codec


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
