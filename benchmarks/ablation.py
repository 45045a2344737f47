"""What each choice of a recipe is worth: short trainings that differ in one; see README.md."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from command import Output, run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import vqcodec
from vqcodec.audio import load, open_recording
from vqcodec.data.corpora import Utterance
from vqcodec.errors import VqcodecError
from vqcodec.evaluation.cache import read_or_make
from vqcodec.evaluation.quality import SAMPLE_RATE, measure_each, pesq_wb, speaker_embedding, stoi
from vqcodec.evaluation.report import clips, markdown_table, mean, spread, write_report
from vqcodec.models.codebook_usage import CollapseMonitor
from vqcodec.training.loop import STATE_FILE
from vqcodec.training.recipe import Recipe
from vqcodec.training.recipe_files import load_recipe
from vqcodec.training.stages import train

RECIPE = Path(__file__).parent / "ablation.yaml"
SCORES = ("validation mel", "STOI", "PESQ-WB", "perplexity", "conversion similarity")
MEANS = ("STOI", "PESQ-WB", "conversion similarity")  # over recordings
NOTES = (
    "Every variant differs from the base in what its name says. Validation mel is the loss of the "
    "kept model on validation segments, lower is better; STOI and PESQ-WB are means over the test "
    "recordings, perplexity is of the codes of all of them; conversion similarity is the mean "
    "cosine between a recording converted to another speaker's voice and that speaker.\n"
)


class Variant(NamedTuple):
    """A training: what it is called, its overrides of the recipe, and how many seeds it gets."""

    name: str
    overrides: tuple[str, ...] = ()
    n_seeds: int = 1


def variants(steps: int) -> list[Variant]:
    """The base, then what differs from it in one choice each."""
    adversarial = ("weight=0.05", "feature_matching=0.2", f"start_step={steps * 3 // 4}")
    return [
        Variant("base: ste", n_seeds=3),
        Variant("nsvq", ("model.quantizer.estimator=nsvq",), 3),
        Variant("rotation", ("model.quantizer.estimator=rotation",), 3),
        Variant("codebook loss, no EMA", ("model.quantizer.codebook_update=loss",)),
        Variant("k-means at the first step", ("unquantized_steps=0",)),
        Variant("codes not normalised", ("model.quantizer.use_cosine_sim=false",)),
        Variant("codes in 64 dimensions", ("model.quantizer.codebook_dim=64",)),
        Variant(
            "codes in 64 dimensions, not normalised",
            ("model.quantizer.codebook_dim=64", "model.quantizer.use_cosine_sim=false"),
        ),
        Variant("K = 256", ("model.quantizer.codebook_size=256",)),
        Variant("K = 1024", ("model.quantizer.codebook_size=1024",)),
        Variant(
            "K = 1024, not normalised",
            ("model.quantizer.codebook_size=1024", "model.quantizer.use_cosine_sim=false"),
        ),
        Variant(
            "codebook loss, not normalised",
            ("model.quantizer.codebook_update=loss", "model.quantizer.use_cosine_sim=false"),
        ),
        Variant("64x", ("model.encoder.strides=[32,2]", "data.segment_length=128")),
        Variant(
            "64x, the paper's encoder",
            (
                "model.encoder.paper=true",
                "model.encoder.strides=[2,2,2,2,2,2]",
                "data.segment_length=128",
            ),
        ),
        Variant(
            "320x",
            ("model.encoder.strides=[32,5,2]", "model.fast.upsample=2", "data.segment_length=25"),
        ),
        Variant("speakers one-hot", ("model.speaker.kind=table",)),
        Variant("speaker perturbed", ("perturbation.probability=0.5",)),
        Variant("STOI loss", ("loss.stoi=1",)),
        Variant("adversarial last quarter", tuple(f"adversarial.{each}" for each in adversarial)),
    ]


def validation_mel(folder: Path, step: int) -> float:
    """The mel loss at which the model was kept, from the logs of its run."""
    events = EventAccumulator(str(folder / "logs")).Reload().Scalars("validation/mel")
    return float({event.step: event.value for event in events}[step])


def similarity(waveform: np.ndarray, target: np.ndarray) -> float:
    """Cosine of a recording's speaker embedding and a target (256,)."""
    return float(speaker_embedding(waveform) @ target / np.linalg.norm(target))


def evaluated(model: Path, recipe: Recipe, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """Scores of a model on recordings; each is also converted to the speaker of the next."""
    codec = vqcodec.load(model)
    recordings = [open_recording(utterance.path) for utterance in utterances]
    waveforms = [load(recording, SAMPLE_RATE) for recording in recordings]
    voices: dict[str, list[np.ndarray]] = {}
    for utterance, waveform in zip(utterances, waveforms, strict=True):
        voices.setdefault(utterance.speaker, []).append(speaker_embedding(waveform))
    names = [name for name in voices if name in codec.voices]
    quantizer = codec.config.quantizer
    monitor = CollapseMonitor(quantizer.codebook_size, quantizer.n_codebooks)
    rows: list[dict[str, float | None]] = []
    for utterance, recording, waveform in zip(utterances, recordings, waveforms, strict=True):
        own = None if codec.hears_speakers else utterance.speaker
        codes = codec.encode(recording, speaker=own)
        monitor.update(torch.from_numpy(codes.codes.astype(np.int64))[None])
        decoded = codec.decode(codes, decoder="fast", sample_rate=SAMPLE_RATE)
        measures = {
            "STOI": partial(stoi, waveform, decoded),
            "PESQ-WB": partial(pesq_wb, waveform, decoded),
        }
        if utterance.speaker in names and len(names) > 1:
            target = names[(names.index(utterance.speaker) + 1) % len(names)]
            said = codec.decode(codes, speaker=target, decoder="fast", sample_rate=SAMPLE_RATE)
            wanted = np.mean(voices[target], axis=0)
            measures["conversion similarity"] = partial(similarity, said, wanted)
        rows.append(dict.fromkeys(MEANS) | measure_each(measures).values)
    return {
        "validation mel": validation_mel(Path(recipe.output), codec.provenance["steps"]),
        "perplexity": monitor.usage().perplexity,
        **{name: mean(rows, name).value for name in MEANS},
    }


def row(variant: Variant, seed: int, recipe: Recipe, found: dict[str, Any]) -> dict[str, Any]:
    """A run, as the CSV file has it."""
    model = recipe.model
    bits = np.log2(model.quantizer.codebook_size) * model.quantizer.n_codebooks
    return {
        "variant": variant.name,
        "seed": seed,
        "steps": recipe.steps,
        "kbit/s": bits * model.sample_rate / model.hop_length / 1000,
        **{name: found[name] for name in SCORES},
        "overrides": " ".join(variant.overrides),
    }


def summarised(rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The runs of a variant: means over seeds, with the standard deviation of several."""
    cells = {"variant": rows[0]["variant"], "kbit/s": f"{rows[0]['kbit/s']:.3f}"}
    for name in SCORES:
        values = [row[name] for row in rows if row[name] is not None]
        spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
        cells[name] = f"{np.mean(values):.3f}{spread}" if values else "-"
    return cells | {"runs": str(len(rows))}


def scored(recipe: Recipe, runs: Path, utterances: Sequence[Utterance], device: str) -> Any:
    """Train and evaluate, or go on where that stopped; what is done is only read.

    Args:
        recipe: of the run; its output is replaced.
        runs: folder of all runs.
        utterances: what it is evaluated on.
        device: of the training.
    """
    folder = runs / _digest(recipe.model_dump_json(exclude={"output"}))
    recipe = recipe.model_copy(update={"output": str(folder)})

    def train_and_evaluate() -> dict[str, Any]:
        model = train(recipe, device=device, resume=(folder / STATE_FILE).exists())
        return evaluated(model, recipe, utterances)

    asked = _digest(json.dumps([utterance.name for utterance in utterances]))
    return read_or_make(folder / f"scores.{asked}.json", train_and_evaluate)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def chosen(names: str, steps: int) -> list[Variant]:
    """Variants by name, or all."""
    everything = {variant.name: variant for variant in variants(steps)}
    wanted = names.split(";") if names else list(everything)
    if unknown := [name for name in wanted if name not in everything]:
        raise VqcodecError(f"no variant {unknown[0]!r}; there are {'; '.join(everything)}")
    return [everything[name] for name in wanted]


def main(
    corpus: Annotated[Path, typer.Argument(help="Corpus folder, or the manifest.csv in it.")],
    prepared: Annotated[Path, typer.Argument(help="What vqcodec prepare made of it.")],
    recipe: Annotated[Path, typer.Option(help="What every run starts from.")] = RECIPE,
    steps: Annotated[int, typer.Option(min=4, help="Of every run.")] = 2500,
    only: Annotated[str, typer.Option(help="Variants, separated by semicolons.")] = "",
    limit: Annotated[int, typer.Option(min=2, help="Test recordings.")] = 40,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    runs: Annotated[Path, typer.Option(help="Where trainings are kept.")] = Path("runs/ablation"),
    output: Output = Path("report"),
) -> None:
    """Train every variant that is not yet trained; write ablation.csv and ablation.md."""
    utterances = spread(clips(corpus, "test"), limit)
    common = [f"data.root={prepared}", f"steps={steps}"]
    common.append(f"unquantized_steps={min(300, steps // 2)}")
    plans = [
        (variant, seed, load_recipe(recipe, [*common, *variant.overrides, f"seed={seed}"]))
        for variant in chosen(only, steps)
        for seed in range(variant.n_seeds)
    ]
    rows: list[dict[str, Any]] = []
    for variant, seed, plan in plans:
        rows.append(row(variant, seed, plan, scored(plan, runs, utterances, device)))
        by_variant = itertools.groupby(rows, key=lambda row: row["variant"])
        table = markdown_table([summarised(list(group)) for _, group in by_variant])
        page = (
            f"Recipe {recipe.name}, {steps} steps each, {len(utterances)} test recordings; "
            f"{len(rows)} of {len(plans)} runs.\n\n{table}\n{NOTES}"
        )
        write_report(output, "ablation", rows, page)
        typer.echo(f"{variant.name}, seed {seed}: done, {len(rows)} of {len(plans)}", err=True)
    typer.echo(page)


if __name__ == "__main__":
    run(main)
