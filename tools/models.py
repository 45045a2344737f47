"""Make packaged models of trained ones: `python tools/models.py --help` lists the commands."""

from __future__ import annotations

import csv
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

import vqcodec
from vqcodec.audio import open_recording
from vqcodec.audio.analysis import pitches, seconds_of_sound
from vqcodec.codec import Codec
from vqcodec.data.encoded import read_encoded
from vqcodec.data.prepared import PreparedData
from vqcodec.data.stream_tracks import heard_tracks
from vqcodec.errors import CheckpointError, DataError, VqcodecError
from vqcodec.files import write_atomically
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.format.stream_records import CodeBlock
from vqcodec.models.config import ModelConfig
from vqcodec.models.graphs import export_graphs
from vqcodec.models.pitch import PitchStream, mean_log_f0
from vqcodec.models.vqvae import VQVAE
from vqcodec.training.entropy_coder import PITCH_TABLES, fit_entropy_coder, fit_tables
from vqcodec.training.recipe_files import load_recipe
from vqcodec.training.session import keep_freed_memory
from vqcodec.weights import checkpoint, model_file
from vqcodec.weights.model_file import CODES_OF
from vqcodec.weights.registry import packaged, read_header
from vqcodec.weights.voices import PITCHES

WEIGHTS = Path(__file__).parents[1] / "vqcodec" / "weights"
LARGEST_BYTES = 16_000_000
SEXES = {"f": "female", "m": "male"}
# Of VCTK's speaker-info.txt; LibriSpeech does not tell.
ACCENTS = {
    "p225": "English (Southern England)",
    "p226": "English (Surrey)",
    "p227": "English (Cumbria)",
    "p228": "English (Southern England)",
    "p239": "English (South West England)",
}

Model = Annotated[str, typer.Argument(help="A packaged model, or a model file.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")]

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def package(
    model: Model,
    name: Annotated[str, typer.Argument(help="Of the packaged model.")],
    voices: Annotated[str, typer.Option(help="Names to keep, with commas between.")],
    provenance: Annotated[Path, typer.Option(help="JSON to add to what the model tells.")],
    train_data: Annotated[
        Path | None, typer.Option(help="A prepared folder, to fit the entropy coder to.")
    ] = None,
    codes: Annotated[
        Path | None, typer.Option(help="Refined codes of that data, to fit it to as well.")
    ] = None,
    wavenet: Annotated[
        str | None, typer.Option(help="Whose WaveNet to take: a model of the same codes.")
    ] = None,
) -> None:
    """Write vqcodec/weights/NAME.safetensors: choose its voices, record what it is made of."""
    if codes is not None and train_data is None:
        raise typer.BadParameter("--codes needs --train-data, whose recordings they are")
    loaded = checkpoint.load(model)
    if wavenet is not None:
        other = checkpoint.load(wavenet)
        if other.fingerprint != loaded.fingerprint:
            raise CheckpointError(f"{wavenet}: its codes are not those of {model}")
        taken = other.config.wavenet
        if taken is not None and taken.hears_fast and _differ(other.model.fast, loaded.model.fast):
            raise CheckpointError(
                f"{wavenet}: listens to another fast decoder than that of {model}"
            )
        loaded.model.wavenet = other.model.wavenet
        loaded.model.config = loaded.model.config.model_copy(update={"wavenet": taken})
    kept = {voice: loaded.voices[voice] for voice in voices.split(",")}
    origin = without_folders({**loaded.provenance, **json.loads(provenance.read_text())})
    if PITCHES in origin:
        origin[PITCHES] = {name: own for name, own in origin[PITCHES].items() if name in kept}
    tables = loaded.tables
    if train_data is not None:
        data = PreparedData(train_data)
        codec = vqcodec.load(model, voices=False)
        keep_freed_memory()
        more = () if codes is None else codes_in(codes, codec, data)
        tables = fit_entropy_coder(codec, data, more=more)
    target = WEIGHTS / f"{name}.safetensors"
    fingerprint = checkpoint.save(
        target, loaded.model, kept, origin, tables, export_graphs(loaded.model)
    )
    size = target.stat().st_size
    typer.echo(f"{target}: {size} bytes, {len(kept)} voices, fingerprint {fingerprint.hex()}")
    if size > LARGEST_BYTES:
        raise VqcodecError(f"{target}: over {LARGEST_BYTES} bytes, too large to package")


def _differ(one: nn.Module | None, other: nn.Module | None) -> bool:
    first, second = (module.state_dict() if module else {} for module in (one, other))
    return first.keys() != second.keys() or any(
        not torch.equal(first[name], second[name]) for name in first
    )


def codes_in(folder: Path, codec: Codec, data: PreparedData) -> list[np.ndarray]:
    """Return codes (Q, n) of recordings of a corpus from a folder, as `read_encoded` takes it."""
    found = read_encoded(folder, data, fingerprint=codec.fingerprint, tables=codec.tables)
    return [found.codes[:, start:end] for start, end in found.places.values()]


def without_folders(tree: Any) -> Any:
    """JSON whose paths are names alone: where they lay is the trainer's own affair."""
    if isinstance(tree, dict):
        return {key: without_folders(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_folders(value) for value in tree]
    return Path(tree).name if isinstance(tree, str) and Path(tree).is_absolute() else tree


@app.command()
def pitch_tables(
    model: Model,
    train_data: Annotated[Path, typer.Argument(help="A prepared folder.")],
    output: Output,
) -> None:
    """Fit the entropy coder to the pitch of a corpus, for a model that has it for its codes alone.

    So a model whose decoder was given a pitch stream reads older files, and writes smaller ones.
    """
    loaded = checkpoint.load(model)
    if loaded.config.pitch is None or loaded.tables is None:
        raise CheckpointError(f"{model}: has no pitch stream, or no tables for its codes")
    own = fitted_to_pitch(loaded.config, PreparedData(train_data))
    tables = replace(loaded.tables, streams={"pitch": own})
    graphs = model_file.read(model).graphs
    checkpoint.save(output, loaded.model, loaded.voices, loaded.provenance, tables, graphs)


def fitted_to_pitch(config: ModelConfig, data: PreparedData) -> NgramModel:
    """Tables for the symbols of the training split; says what those of validation take by them."""
    assert config.pitch is not None
    stream = PitchStream(config.pitch)
    symbols = defaultdict(list)
    tracks = heard_tracks(data, "pitch", config.hop_length)
    for clip, track in zip(data.clips, tracks, strict=True):
        symbols[clip.split].append(stream.quantizer.encode(track, mean_log_f0(track))[None])
    size, rate = config.pitch.alphabet_size, config.sample_rate / config.hop_length
    tables = fit_tables(symbols["train"], size, **PITCH_TABLES)
    held_out = [own for own in symbols["valid"] if own.size]
    n_bits = sum(8 * len(tables.encode(CodeBlock(own))) for own in held_out)
    seconds = sum(own.size for own in held_out) * config.pitch.codes_per_symbol / rate
    if held_out:
        typer.echo(f"pitch: {n_bits / seconds:.1f} bit/s on {len(held_out)} validation recordings")
    return tables


@app.command()
def average(
    models: Annotated[list[str], typer.Argument(help="Packaged models, or model files.")],
    output: Output,
    moved_codes: Annotated[
        bool, typer.Option("--moved-codes", help="Let one training have moved the codes a little.")
    ] = False,
) -> None:
    """Average what models of the same codes have trained apart; the WaveNet is the first's.

    Trainings that began from one model may end in one valley, whose middle is lower than its sides
    (model soups, Wortsman et al. 2022, arXiv 2203.05482), and between a model and what it became in
    noise there is one that does well in both (arXiv 2109.01903). A model named twice counts twice.
    """
    loaded = [checkpoint.load(name) for name in models]
    first = loaded[0]
    for name, one in zip(models, loaded, strict=True):
        if one.fingerprint != first.fingerprint and not moved_codes:
            raise CheckpointError(f"{name}: its codes are not those of {models[0]}")
        if one.model.fast is None or one.config.fast != first.config.fast:
            raise CheckpointError(f"{name}: has no fast decoder of the shape of {models[0]}'s")
    provenance = {**first.provenance, "averaged": models}
    decoders_differ = _average([one.model.fast for one in loaded])
    if not moved_codes:
        encoders_differ = _average([one.model.encoder for one in loaded])
        speakers_differ = _average([one.model.speaker for one in loaded])
        if encoders_differ or speakers_differ:
            provenance[CODES_OF] = first.fingerprint.hex()
    wavenet = first.config.wavenet
    if wavenet is not None and wavenet.hears_fast and decoders_differ:
        first.model.wavenet = None
        first.model.config = first.config.model_copy(update={"wavenet": None})
    graphs = export_graphs(first.model)
    checkpoint.save(output, first.model, first.voices, provenance, first.tables, graphs)


def _average(parts: Sequence[nn.Module | None]) -> bool:
    """Give the first of several networks the mean of all; returns whether they differ at all."""
    first = parts[0]
    if first is None or not any(_differ(first, other) for other in parts[1:]):
        return False
    states = [part.state_dict() for part in parts if part is not None]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    first.load_state_dict(mean)
    return True


@app.command()
def grow(
    model: Model,
    recipe: Annotated[Path, typer.Argument(help="Of the shape that is wanted.")],
    output: Output,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Begin a model with more codes, or at another code rate, from a trained one.

    Parameters of the same name and shape are copied; the kernels of a strided convolution whose
    stride has changed are resampled in time; the rest, and the codebook, start anew. The file is
    for the recipe's `initial_model`.
    """
    shape = load_recipe(recipe, overrides).model.model_copy(update={"wavenet": None})
    trained = checkpoint.load(model).model.state_dict()
    begun = VQVAE(shape)
    own = begun.state_dict()
    for name, parameter in own.items():
        if name in trained and (value := adapted(trained[name], parameter)) is not None:
            own[name] = value
    # The codebook is started again by k-means, after the recipe's unquantised steps.
    own["quantizer.initialized"] = torch.tensor(False)
    begun.load_state_dict(own)
    checkpoint.save(output, begun, {}, {"begun_from": model})


def adapted(old: Tensor, new: Tensor) -> Tensor | None:
    """The old parameter in the new one's shape, or None where it says nothing about it."""
    if old.shape == new.shape:
        return old
    if old.dim() == 3 and old.shape[:2] == new.shape[:2]:
        # Fewer taps sum less: of inputs that differ, the power of every output stays.
        taps = F.interpolate(old, new.shape[2], mode="linear", align_corners=False)
        return taps * (old.shape[2] / new.shape[2]) ** 0.5
    return None


@app.command()
def describe_voices(
    corpus: Annotated[Path, typer.Argument(help="A folder with a manifest.csv.")],
) -> None:
    """Write vqcodec/weights/voices.json, which `vqcodec speakers` shows.

    Pitch and seconds are measured on the training split, as `vqcodec enroll` measures them; sex and
    source are what the manifest says.
    """
    names = {name for path in packaged().values() for name in read_header(path).voices}
    rows: dict[str, list[dict[str, str]]] = defaultdict(list)
    with (corpus / "manifest.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["speaker"] in names and row["split"] == "train":
                rows[row["speaker"]].append(row)
    if missing := names - rows.keys():
        raise DataError(f"{corpus}: has no training recordings of {', '.join(sorted(missing))}")
    voices = {name: described(name, corpus, rows[name]) for name in sorted(names)}
    write_atomically(WEIGHTS / "voices.json", (json.dumps(voices, indent=1) + "\n").encode())


def described(name: str, corpus: Path, rows: list[dict[str, str]]) -> dict[str, str | float]:
    """What is known of a voice, as `voices.VoiceInfo` has it."""
    found, seconds = [], 0.0
    for row in rows:
        recording = open_recording(corpus / row["path"])
        gain = recording.gain()
        found.append(pitches(recording, gain))
        seconds += float(seconds_of_sound(recording, gain).sum())
    accent = {"accent": ACCENTS[name]} if name in ACCENTS else {}
    return {
        "sex": SEXES[rows[0]["sex"]],
        "pitch_hz": round(float(np.median(np.concatenate(found))), 1),
        "seconds": round(seconds, 1),
        "source": rows[0]["source"],
        **accent,
    }


if __name__ == "__main__":
    try:
        app()
    except VqcodecError as error:
        sys.exit(f"error: {error}")
