"""Every packaged recipe, trained for some steps at a small size."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Run
from training_data import RECIPES, prepare_speech

import vqcodec
from vqcodec import prior
from vqcodec.data.phones import add_phones
from vqcodec.data.prepared import PreparedData
from vqcodec.training import trainer
from vqcodec.training.recipe_files import read_recipe

FOUND = sorted(RECIPES.rglob("*.yaml"))
MOST = 10

SMALL = ["steps=3", "validate_every=3", "checkpoint_every=3", "data.batch_size=2"]
SMALL_CODEC = [
    *("stages=[]", "entropy_coder.hours=0"),
    *("unquantized_steps=1", "data.workers=0", "model.encoder.n_filters=16"),
    *("model.encoder.channels=16", "model.encoder.code_channels=16", "model.speaker.channels=8"),
    *("model.quantizer.dim=16", "model.quantizer.codebook_dim=8"),
    *("model.quantizer.codebook_size=16",),
]
SMALL_FAST = ["model.fast.channels=16", "model.fast.n_layers=1"]
SMALL_WAVENET = [
    *("model.wavenet.n_stacks=1", "model.wavenet.layers_per_stack=3"),
    *("model.wavenet.residual_channels=8", "model.wavenet.skip_channels=8"),
    *("model.wavenet.condition_channels=8",),
]
SMALL_PRIOR = ["model.channels=16", "model.n_layers=1", "data.segment_length=64"]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """Speech with phone labels, which units_25hz.yaml needs."""
    data, labels = prepare_speech(tmp_path_factory.mktemp("data")), tmp_path_factory.mktemp("lab")
    for clip in data.clips:
        path = labels / f"{clip.name}.lab"
        path.parent.mkdir(exist_ok=True)
        middle, end = (share * clip.n_samples / data.sample_rate for share in (0.5, 1.0))
        path.write_text(f"0.0 {middle:.3f} AH\n{middle:.3f} {end:.3f} S\n", encoding="utf-8")
    add_phones(data, labels)
    return data


def made_small(path: Path) -> list[str]:
    """Overrides that make a recipe take seconds; what its model lacks it still lacks."""
    tree = read_recipe(path)
    if tree["stage"] == "prior":
        return [*SMALL, *SMALL_PRIOR]
    if str(tree.get("initial_model", "")).startswith("speech-"):  # whose shape is what it is
        return [*SMALL, "data.workers=0"]
    absent = [name for name in ("fast", "wavenet") if tree.get("model", {}).get(name, "") is None]
    parts = {"fast": SMALL_FAST, "wavenet": SMALL_WAVENET}
    own = [each for name, part in parts.items() if name not in absent for each in part]
    return [*SMALL, *SMALL_CODEC, *own]


def test_there_are_recipes_but_few() -> None:
    assert 0 < len(FOUND) <= MOST


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_every_recipe_trains(
    path: Path, run: Run, labelled: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "VALIDATION_BATCHES", 1)
    overrides = [*made_small(path), f"data.root={labelled.root}", f"output={tmp_path / 'run'}"]
    if path.name == "vctk_wavenet.yaml":
        first = tmp_path / "first"
        codec = [*made_small(RECIPES / "vctk.yaml"), f"data.root={labelled.root}"]
        assert run("train", "vctk.yaml", *codec, f"output={first}").status == 0
        overrides.append(f"initial_model={first / 'model.safetensors'}")
    done = run("train", path.name, *overrides)
    assert done.status == 0, done.stderr
    tree = read_recipe(path)
    if tree["stage"] == "prior":
        codec = vqcodec.load(tree["codec"], device="cpu")
        made = prior.load(codec, tmp_path / "run" / "prior.safetensors")
        assert made.sample(0.1, speaker=vqcodec.load(device="cpu").speaker("p225")).n_codes > 0
        return
    made = vqcodec.load(tmp_path / "run" / "model.safetensors", device="cpu")
    assert made.provenance["steps"] == 3
    trained = "fast" if tree["stage"] in ("codec", "fast") else "wavenet"
    assert trained in made.decoders
    waveform = labelled.read(labelled.clips[0])
    codes = made.encode(
        waveform, labelled.sample_rate, speaker=None if made.hears_speakers else "rms"
    )
    if trained == "fast":  # a WaveNet is compiled first
        assert made.decode(codes).shape == waveform.shape
