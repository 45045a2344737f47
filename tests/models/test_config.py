from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from training_data import RECIPES

from vqcodec.errors import ConfigError
from vqcodec.models.config import ModelConfig, WaveNetConfig
from vqcodec.models.loss_config import LossConfig
from vqcodec.models.receptive_field import encoder_context, istft_reach
from vqcodec.models.vqvae import VQVAE
from vqcodec.training.model_files import complete_recipe
from vqcodec.training.recipe import Recipe
from vqcodec.training.recipe_files import load_recipe, read_recipe
from vqcodec.weights import checkpoint

FOUND = sorted(RECIPES.rglob("*.yaml"))
CODECS = [path for path in FOUND if read_recipe(path).get("stage") != "prior"]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", CODECS, ids=lambda path: path.name)
def test_every_recipe_loads_and_its_model_computes(path: Path) -> None:
    recipe = load_recipe(path)
    model = VQVAE(recipe.model, n_speakers=3).eval()
    codes = model.encode(torch.randn(1, 4 * recipe.model.hop_length))
    assert codes.shape == (1, recipe.model.quantizer.n_codebooks, 4)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.name)
def test_every_recipe_says_what_it_is_for(path: Path) -> None:
    header = path.read_text(encoding="utf-8").splitlines()[:4]
    assert header[0].startswith("# ")
    assert [line.partition(":")[0] for line in header[1:]] == ["# Needs", "# Run", "# Override"]
    assert f"vqcodec train {path.name}" in header[2]


@pytest.mark.parametrize("path", CODECS, ids=lambda path: path.name)
def test_the_override_that_a_recipe_suggests_is_valid(path: Path) -> None:
    command = path.read_text(encoding="utf-8").splitlines()[3].split()
    overrides = command[command.index(path.name) + 1 :]
    assert overrides
    assert load_recipe(path, overrides) != load_recipe(path)


def test_the_paper_recipe_is_the_paper() -> None:
    recipe = load_recipe(RECIPES / "vctk_paper.yaml")
    model, quantizer = recipe.model, recipe.model.quantizer
    assert (model.hop_length, quantizer.codebook_size) == (64, 512)
    assert quantizer.codebook_update == "loss"
    assert (quantizer.commitment_weight, quantizer.estimator) == (0.25, "ste")
    assert quantizer.codebook_dim == quantizer.dim
    assert not quantizer.use_cosine_sim
    assert (model.speaker.kind, model.fast, recipe.stage) == ("table", None, "joint")


def test_the_wavenet_recipe_fits_the_model_of_the_stages_before() -> None:
    first, second = (load_recipe(RECIPES / name) for name in ("vctk.yaml", "vctk_wavenet.yaml"))
    codecs = [one.model.model_copy(update={"wavenet": None}) for one in (first, second)]
    assert codecs[0] == codecs[1]
    assert second.initial_model == f"{first.output}/2_encoder/model.safetensors"
    assert second.data.root == first.data.root


def test_a_wavenet_is_not_held_to_the_fast_decoder_s_losses() -> None:
    recipe = load_recipe(RECIPES / "vctk_wavenet.yaml", ["data.segment_length=32"])
    assert recipe.loss.stoi > 0
    assert not recipe.trains_waveforms


@pytest.mark.parametrize(
    ("name", "bits"), [("vctk", 1125), ("vctk_paper", 2250), ("units_25hz", 175)]
)
def test_bit_rates(name: str, bits: int) -> None:
    model = load_recipe(RECIPES / f"{name}.yaml").model
    size = model.quantizer.codebook_size
    assert model.sample_rate // model.hop_length * (size.bit_length() - 1) == bits


def test_the_causal_recipe_waits_as_long_as_it_says() -> None:
    model = load_recipe(RECIPES / "causal.yaml").model
    assert model.fast is not None
    assert encoder_context(model.encoder)[1] == 0
    wait = model.hop_length + istft_reach(model.fast, model.hop_length)[0]
    assert 1000 * wait / model.sample_rate == 20


def test_one_error_names_every_fault_and_the_nearest_known_key(tmp_path: Path) -> None:
    path = write(
        tmp_path / "wrong.yaml",
        "stepz: 5\nmodel:\n  quantizer:\n    codebok_size: 64\n    estimator: magic\n"
        "optimizer:\n  learning_rate: -1\n",
    )
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "unknown key stepz; did you mean steps?" in message
    assert (
        "unknown key model.quantizer.codebok_size; did you mean model.quantizer.codebook_size?"
        in message
    )
    assert "model.quantizer.estimator" in message
    assert "'magic'" in message
    assert "optimizer.learning_rate" in message
    assert "(got -1)" in message
    assert "\n" not in message


OF_THE_WAVENET = ["stage=wavenet", "initial_model=speech-1k"]


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["model.fast=null"], "stage codec trains model.fast, but that is null"),
        (
            ["stage=joint", "model.wavenet=null"],
            "stage joint trains model.wavenet, but that is null",
        ),
        (["stage=wavenet"], "stage wavenet needs initial_model"),
        (["stage=fast"], "stage fast needs initial_model"),
        (["stage=fast", "model.fast=null"], "stage fast trains model.fast, but that is null"),
        (["data.codes=codes"], "data.codes would change their meaning at stage codec"),
        (["perturbation.conversion=0.5"], "perturbation.conversion needs frozen codes"),
        (["steps=300"], "steps 300 end before the codebook starts, after unquantized_steps 300"),
        (["loss.stoi=1", "data.segment_length=49"], "0.4 s at a time, more than the 6272 samples"),
        (
            ["loss.periodicity=1", "data.segment_length=20", "model.sample_rate=48000"],
            "loss.periodicity listens to 0.064 s at a time, more than the 2560 samples",
        ),
        (["optimizer.betas=[0.9,1.0]"], r"optimizer\.betas\.1: .* less than 1"),
        (["optimizer.learning_rate=.inf"], r"optimizer\.learning_rate: .* finite"),
        (["model.encoder.strides=[]"], r"model\.encoder\.strides: .* at least 1 item"),
        (["data.segment_length=8"], "segments of 1024 samples, shorter than .* 2048"),
        (["model.fast=null", "model.wavenet=null"], "a model needs a decoder"),
        (["model.quantizer.kind=fsq", "model.quantizer.levels=[4,4]"], "make 16 codes, .* 512"),
        (
            ["model.quantizer={kind: fsq, levels: [8, 8, 8], estimator: nsvq}"],
            "kind fsq has no estimator nsvq",
        ),
        (["model.quantizer={kind: residual_vq, codebook_update: loss}"], "no codebook_update loss"),
        (["model.encoder.paper=true"], r"strides: \[2, 2, 2, 2, 2, 2\]"),
        (["adversarial.weight=1", "adversarial.start_step=400000"], "400000 is not before the end"),
        (
            ["adversarial.weight=1", *OF_THE_WAVENET],
            "adversarial trains the fast decoder, which this stage does not",
        ),
        (["stage=joint", "loss.prediction=3"], "prediction_order 0 gives it none: set that to 8"),
        (
            ["loss.prediction=3", "model.wavenet.prediction_order=0", *OF_THE_WAVENET],
            "loss.prediction teaches the WaveNet's filter",
        ),
        (["model.encoder.strides=[640]"], "shorter than the first stride 640"),
        (["model.encoder.strides=[32,16]"], "n_fft 512 must be at least twice the hop length 512"),
        (["model.fast.upsample=3"], "fast.upsample 3 must divide the hop length 128"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    tmp_path: Path, overrides: list[str], fault: str
) -> None:
    path = write(tmp_path / "recipe.yaml", "seed: 0\n")
    assert load_recipe(path) == Recipe()
    with pytest.raises(ConfigError, match=fault):
        load_recipe(path, overrides)


def test_the_initial_model_may_bring_the_filter_that_is_taught(
    told_model: Path, tiny_model: Path
) -> None:
    losses = LossConfig(prediction=3.0)
    recipe = Recipe(stage="wavenet", initial_model="mine", model=ModelConfig(), loss=losses)
    told, tiny = checkpoint.load(told_model), checkpoint.load(tiny_model)
    assert complete_recipe(recipe, told).model == told.config
    bare = tiny.config.model_copy(update={"wavenet": None})
    for start in (tiny, replace(tiny, model=VQVAE(bare))):
        with pytest.raises(
            ConfigError, match=r"mine: loss\.prediction teaches the WaveNet's filter"
        ):
            complete_recipe(recipe, start)


def test_overrides_are_yaml_and_reach_into_sections(tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", "data: {batch_size: 4}\n")
    recipe = load_recipe(
        path,
        [
            "steps=1000",
            "data.root=a=b",
            "model.encoder.strides=[20, 5]",
            "model.wavenet=null",
            "optimizer.learning_rate=1e-4",
            "max_minutes=1.5",
        ],
    )
    assert (recipe.steps, recipe.data.root, recipe.data.batch_size) == (1000, "a=b", 4)
    assert recipe.model.encoder.strides == (20, 5)
    assert recipe.model.wavenet is None
    assert (recipe.optimizer.learning_rate, recipe.max_minutes) == (1e-4, 1.5)


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("steps", "'steps' is not an override: write key=value"),
        ("steps.x=1", "'steps' has no keys of its own"),
        ("steps=[1,", "'steps=.1,': the value is not YAML"),
        ("data.rot=x", "unknown key data.rot; did you mean data.root?"),
        ("steps=4e5", "steps: .* \\(got '4e5'\\)"),
    ],
)
def test_wrong_overrides_are_refused(tmp_path: Path, override: str, fault: str) -> None:
    path = write(tmp_path / "recipe.yaml", "steps: 1000\n")
    with pytest.raises(ConfigError, match=fault):
        load_recipe(path, [override])


def test_a_recipe_states_only_what_differs_from_its_base(tmp_path: Path) -> None:
    write(
        tmp_path / "base.yaml",
        "steps: 7000\ndata: {root: here, batch_size: 3}\nmodel: {wavenet: null}\n",
    )
    path = write(
        tmp_path / "other.yaml",
        "base: base.yaml\ndata: {batch_size: 5}\nmodel: {wavenet: {n_stacks: 3}}\n",
    )
    recipe = load_recipe(path, ["seed=9"])
    assert (recipe.steps, recipe.seed, recipe.data.root) == (7000, 9, "here")
    assert recipe.data.batch_size == 5
    assert recipe.model.wavenet is not None
    assert recipe.model.wavenet.n_stacks == 3


def test_a_recipe_may_be_based_on_a_packaged_one(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", "base: tiny.yaml\nseed: 9\n")
    tiny = load_recipe("tiny.yaml")
    assert load_recipe(path) == tiny.model_copy(update={"seed": 9})


def test_a_recipe_cannot_be_its_own_base(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", "base: mine.yaml\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: is its own base"):
        load_recipe(path)
    path = write(tmp_path / "one.yaml", "base: other.yaml\n")
    write(tmp_path / "other.yaml", "base: one.yaml\n")
    with pytest.raises(ConfigError, match=r"other\.yaml: is its own base"):
        load_recipe(path)


def test_packaged_recipes_are_those_of_no_other_folder(tmp_path: Path) -> None:
    assert load_recipe("recipes/tiny.yaml") == load_recipe("tiny.yaml")
    with pytest.raises(ConfigError, match=r"tiny\.yaml: no such recipe"):
        load_recipe(tmp_path / "tiny.yaml")


def test_a_part_that_a_recipe_leaves_out_can_be_added(tmp_path: Path) -> None:
    path = write(tmp_path / "recipe.yaml", "model: {wavenet: null}\n")
    model = load_recipe(path, ["model.wavenet.n_stacks=1"]).model
    assert model.wavenet is not None
    assert model.wavenet.n_stacks == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("steps: [", "not YAML"),
        ("- 1\n", "a mapping of keys"),
        ("", "a mapping of keys"),
        ("data: {root: here}\nsteps: 5\ndata: {workers: 1}\n", "'data' stands there twice"),
        ("a: &a [1, 1]\nb: *a\n", r"the alias \*a: write out what it stands for .* line 2"),
        ("steps: !!int x", "'x' is no int .* line 1"),
        ("steps: !!timestamp x", "'x' is no timestamp"),
        ("steps: !!bool x", "'x' is no bool"),
        ("steps: !!set x", "expected a mapping"),
        ("steps: 2001-99-99", "'2001-99-99' is no timestamp"),
        ("steps: " + "9" * 5000, "is no int"),
        ("steps: 0x" + "f" * 5000, "is no int"),
        ("seed: 9223372036854775808", "less than 9223372036854775808"),
        ("[" * 1200, "nested too deeply"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    path = write(tmp_path / "odd.yaml", text)
    with pytest.raises(ConfigError, match=f"odd.yaml: .*{fault}"):
        load_recipe(path)


@pytest.mark.parametrize("base", ["/", "x" * 5000, '"\\0"', "[a]"])
def test_a_base_that_is_no_recipe_is_refused(tmp_path: Path, base: str) -> None:
    path = write(tmp_path / "odd.yaml", f"base: {base}\n")
    with pytest.raises(ConfigError, match=r"cannot be read \(Is a directory\)|no such recipe"):
        load_recipe(path)


YAML_PIECES = [
    *("steps", "data", "model", "seed", "base", "output", "é", "\0", " ", "\n", "\n  ", ": ", "- "),
    *":,-?[]{}\"'|>!*&#%@`~",
    *("!!int ", "!!set ", "!!omap ", "!!float ", "!!binary ", "!!timestamp ", "&a ", "*a", "<<: "),
    *("null", "true", "1", "1e9", ".nan", "0x1f", "1:2", "2001-99-99"),
]


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.lists(st.sampled_from(YAML_PIECES), max_size=12).map("".join), is_value=st.booleans()
)
def test_whatever_stands_in_a_recipe_is_read_or_refused(
    tmp_path: Path, text: str, is_value: bool
) -> None:
    path = write(tmp_path / "odd.yaml", "steps: 5000" if is_value else text)
    with contextlib.suppress(ConfigError):
        load_recipe(path, [f"seed={text}"] if is_value else [])


def test_a_model_section_survives_its_json_form() -> None:
    for path in CODECS:
        model = load_recipe(path).model
        assert ModelConfig.model_validate_json(model.model_dump_json()) == model


def test_wavenets_of_earlier_files_are_read_and_what_is_gone_is_refused() -> None:
    former = {"n_bands": 4, "pitch_taps": 0, "n_harmonics": 0}
    assert WaveNetConfig.model_validate(former) == WaveNetConfig(n_bands=4)
    with pytest.raises(ValidationError, match="n_harmonics"):
        WaveNetConfig.model_validate({**former, "n_harmonics": 8})
