"""The models that a training starts from and writes, and the voices that it names in these."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from vqcodec.data.clips import AudioClips, Clip
from vqcodec.data.dataset import speaker_names
from vqcodec.data.stream_tracks import StreamTracks
from vqcodec.errors import CheckpointError
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.models.graphs import export_graphs
from vqcodec.models.pitch import mean_log_f0
from vqcodec.models.speaker import SpeakerTable
from vqcodec.models.speaker_vector import mean_vector, to_int8
from vqcodec.models.streams import build_streams
from vqcodec.models.vqvae import VQVAE
from vqcodec.training.recipe import Recipe
from vqcodec.training.recipe_files import merge, validated
from vqcodec.weights import checkpoint
from vqcodec.weights.checkpoint import Checkpoint
from vqcodec.weights.model_file import CODES_OF
from vqcodec.weights.voices import PITCHES

logger = logging.getLogger(__name__)

MAX_CLIPS, MIN_CLIPS = 30, 8
MIN_SECONDS = 30.0
# Of a clip: the mel spectrogram needs a window's worth, and hours would not fit in memory.
SHORTEST_S, LONGEST_S = 0.5, 30.0


def complete_recipe(recipe: Recipe, start: Checkpoint | None) -> Recipe:
    """The recipe, with what it leaves open of the model as its initial model has it.

    Of a part that the initial model lacks, the recipe's defaults stand. Raises ConfigError if the
    two make no sense together.
    """
    if start is None:
        return recipe
    known = start.config.model_dump(exclude_none=True)
    model = merge(recipe.model.model_dump(), known)  # all keys: checks see what is left open
    model = merge(model, recipe.model.model_dump(exclude_unset=True))
    if recipe.stage in ("fast", "encoder"):
        # Codes keep their meaning, and so a WaveNet its worth unless it listens to what is trained;
        # one that is new would stay untrained.
        wavenet = known.get("wavenet")
        is_other = recipe.stage == "fast" and wavenet and wavenet["hears_fast"]
        model["wavenet"] = None if is_other else wavenet
    return validated(Recipe, str(recipe.initial_model), {**recipe.model_dump(), "model": model})


def build_model(recipe: Recipe, start: Checkpoint | None, speakers: Sequence[str]) -> VQVAE:
    """A new model, or the one to start from and what it lacks.

    The recipe is of `complete_recipe`, and a speaker table has a row for each training speaker.
    Raises CheckpointError if the initial model is not of the recipe's shape, or its table of other
    speakers.
    """
    model = VQVAE(recipe.model, len(speakers))
    if start is None:
        return model
    if recipe.model.speaker.kind == "table" and sorted(start.voices) != sorted(speakers):
        raise CheckpointError(
            f"{recipe.initial_model}: has a table of other speakers than the data: train it on "
            "data of its own speakers, or begin anew"
        )
    own, known = model.state_dict(), start.model.state_dict()
    if start.model.wavenet is not None:
        if recipe.stage == "fast" and model.wavenet is None:
            fault = (
                "listens to the fast decoder, which changes, and is left out: train one on the new "
                "model (stage wavenet)"
            )
        elif recipe.stage == "wavenet" and start.config.wavenet != recipe.model.wavenet:
            fault = "has another shape: a new one begins"
        else:
            fault = ""
        if fault:
            logger.info("the WaveNet of %s %s", recipe.initial_model, fault)
            known = {name: own for name, own in known.items() if not name.startswith("wavenet.")}
    # Absent parts (a decoder that is new) start fresh; present parts must fit.
    misfits = [key for key in known.keys() & own.keys() if known[key].shape != own[key].shape]
    if misfits or known.keys() - own.keys():
        odd = misfits or sorted(known.keys() - own.keys())
        raise CheckpointError(
            f"{recipe.initial_model}: does not fit the recipe's model at {odd[0]}: "
            "leave the model section out, and it is the initial model's"
        )
    model.load_state_dict({**own, **known})
    return model


def log_voices(recipe: Recipe, start: Checkpoint, speakers: Sequence[str]) -> None:
    """Log what becomes of the voices of the model that a training starts from, if that is news."""
    name = recipe.initial_model
    both, lost = sorted({*start.voices} & {*speakers}), sorted({*start.voices} - {*speakers})
    if recipe.freezes_codebook and recipe.model.speaker.kind == "encoder" and both:
        logger.info(
            "%s stay as %s has them, for its code files name them; to have new ones, rename the "
            "speakers of the data",
            ", ".join(both),
            name,
        )
    if not recipe.freezes_codebook and lost:
        logger.info(
            "new codes need new voices: %s of %s, of whom the data has nothing, are left out",
            ", ".join(lost),
            name,
        )


def log_tables(recipe: Recipe, start: Checkpoint) -> None:
    """Log that files grow where codes that stay come with a stream that had no entropy coder."""
    if not recipe.freezes_codebook or start.tables is None:
        return
    if lacked := build_streams(recipe.model).keys() - start.tables.streams.keys():
        logger.info(
            "the entropy coder of %s knows no %s: code files of the new model are of packed bits, "
            "about twice as large, until python tools/models.py pitch-tables fits one to it",
            recipe.initial_model,
            ", ".join(sorted(lacked)),
        )


def write_model(
    path: Path,
    model: VQVAE,
    recipe: Recipe,
    data: AudioClips,
    device: torch.device,
    *,
    steps: int,
    validation_loss: float,
    tables: NgramModel | None,
    voices: Mapping[str, np.ndarray],
    pitches: Mapping[str, float],
    codes_of: bytes | None,
) -> None:
    """Write what a stage has trained, with the voices of its speakers.

    Args:
        path: of the model file.
        model: in evaluation mode, on `device`.
        recipe: what it was trained by.
        data: what it was trained on.
        device: a CPU or a GPU.
        steps: done.
        validation_loss: of the model.
        tables: of the entropy coder, where the codes are those that they were fitted to.
        voices: name -> (64,) int8 of the initial model, where the codes and vectors are its own.
            They stay as they are: files of its codes name them.
        pitches: name -> mean pitch in Hz of voices, as far as it is known.
        codes_of: fingerprint of the initial model, where its codebook is kept and the encoders are
            others.
    """
    if recipe.stage == "codec" and model.wavenet is not None:
        # Untrained: the file is to offer only what can decode.
        config = model.config.model_copy(update={"wavenet": None})
        bare = VQVAE(config, len(speaker_names(data.split("train")))).to(device).eval()
        bare.load_state_dict(model.state_dict(), strict=False)
        model = bare
    provenance = {
        "stage": recipe.stage,
        "steps": steps,
        "validation_loss": round(validation_loss, 4),
        "recipe": recipe.model_dump(mode="json"),
        "torch": torch.__version__,
        **({PITCHES: dict(pitches)} if pitches else {}),
        **({CODES_OF: codes_of.hex()} if codes_of else {}),
    }
    found = {**mean_voices(model, data, device), **voices}
    checkpoint.save(path, model, found, provenance, tables, export_graphs(model))


@torch.no_grad()
def mean_voices(model: VQVAE, data: AudioClips, device: torch.device) -> dict[str, np.ndarray]:
    """Vectors, (64,) int8, of the training speakers that are heard enough to be named.

    A speaker needs 8 training clips, or half a minute of audio; with a speaker table every row
    is a voice.
    """
    clips = data.split("train")
    if isinstance(model.speaker, SpeakerTable):
        rows = torch.arange(len(speaker_names(clips)), device=device)
        vectors = model.speaker(rows)
        return {
            name: to_int8(vector.cpu().numpy())
            for name, vector in zip(speaker_names(clips), vectors, strict=True)
        }
    by_speaker: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        by_speaker[clip.speaker].append(clip)
    voices = {}
    for name, own in sorted(by_speaker.items()):
        seconds = sum(clip.n_samples for clip in own) / data.sample_rate
        if len(own) < MIN_CLIPS and seconds < MIN_SECONDS:
            continue
        vectors = [
            model.speaker(torch.from_numpy(_beginning(data, clip))[None].to(device))[0]
            for clip in own[:MAX_CLIPS]
        ]
        voices[name] = mean_vector(torch.stack(vectors).cpu().numpy())
    return voices


def mean_pitches(data: AudioClips, tracks: StreamTracks | None) -> dict[str, float]:
    """Mean fundamental frequency in Hz of the training speakers, of whom anything is voiced."""
    if tracks is None or "pitch" not in tracks.values:
        return {}
    contours: dict[str, list[np.ndarray]] = defaultdict(list)
    for clip in data.split("train"):
        start, end = tracks.spans[clip.name]
        contours[clip.speaker].append(tracks.values["pitch"][start:end])
    joined = {name: np.concatenate(own) for name, own in contours.items()}
    return {name: round(math.exp(mean_log_f0(own)), 1) for name, own in joined.items() if own.any()}


def _beginning(data: AudioClips, clip: Clip) -> np.ndarray:
    samples = data.read(clip, 0, round(LONGEST_S * data.sample_rate))
    missing = round(SHORTEST_S * data.sample_rate) - len(samples)
    return np.pad(samples, (0, max(0, missing)))
