"""The examples, far too short to be good: what they show happens all the same."""

from __future__ import annotations

import gzip
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import ROOT

EXAMPLES = ROOT / "examples"
FIGURES = ROOT / "docs" / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "common")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs one at reduced size, on the digits, which are there wherever tests run."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(importlib.import_module("common"), "FASHION_MNIST", tmp_path / "none")

    def run(name: str) -> dict[str, Any]:
        measured: dict[str, Any] = importlib.import_module(name).run(tmp_path, quick=True)
        drawn = {path.name for path in tmp_path.glob("*.png")}
        page = (FIGURES / f"{name}.md").read_text("utf-8")
        assert drawn
        assert all(f"]({figure})" in page for figure in drawn)
        return measured

    return run


def test_quantizer_by_hand(example: Any) -> None:
    measured = example("quantizer_by_hand")
    assert measured["codes of x0 to x5"] == "0 0 1 1 2 3"
    changes = [measured[f"change of the gradient, {title}"] for title in ESTIMATORS]
    assert changes[0] == 0
    assert changes == sorted(changes)
    assert measured["codes in use, restart"] > measured["codes in use, no restart"]
    for update in ("codebook loss", "moving averages"):
        begun, ended = map(float, measured[f"error after 1 and 20 steps, {update}"].split())
        assert ended < begun


ESTIMATORS = ("straight-through", "NSVQ, 20 draws", "rotation trick")


def test_both_quantizers_learn_alike(example: Any) -> None:
    measured = example("mlp_vqvae")
    errors = {}
    for name in ("vqcodec", "vector-quantize-pytorch"):
        errors[name] = measured[f"{name}, held-out error"]
        assert errors[name] < 0.6 * measured[f"{name}, first training error"]
    ours, theirs = errors.values()
    assert ours == pytest.approx(theirs, rel=0.15)


def test_priors_and_decoders_learn(example: Any) -> None:
    measured = example("pixelcnn_prior")
    uniform = measured["bits per code, uniform"]
    assert uniform == 6
    for name in ("PixelCNN", "transformer"):
        assert measured[f"bits per code, {name}"] < 0.95 * uniform
        assert measured[f"bits per dimension, {name}"] < measured["bits per dimension, uniform"]
    assert measured["error, squared error"] < 0.7 * measured["first error"]


def test_photographs_are_learnt(example: Any) -> None:
    measured = example("photographs")
    assert measured["last error"] < 0.7 * measured["first error"]
    assert measured["bits per pixel, of 24"] == 9 / 16


def test_each_level_and_each_stream_holds_its_own(example: Any) -> None:
    measured = example("two_levels")
    assert measured["last error"] < 0.7 * measured["first error"]
    melody = {kind: measured[f"melody heard and recorded, {kind}"] for kind in STREAMS}
    words = {kind: int(measured[f"words heard, {kind}"].split()[0]) for kind in STREAMS}
    assert melody["both streams"] > 0.8
    assert melody["melody shuffled"] < 0.6
    assert measured["melody heard and told, melody shuffled"] > melody["melody shuffled"]
    assert words["melody shuffled"] > words["codes shuffled"] + 1


STREAMS = ("both streams", "melody shuffled", "codes shuffled")


def test_frames_and_what_follows_are_learnt(example: Any) -> None:
    measured = example("action_video")
    for what in ("error of frames", "nats per code"):
        begun, ended = map(float, measured[f"first and last {what}"].split())
        assert ended < 0.7 * begun


def test_the_audio_model_is_the_codec(example: Any) -> None:
    measured = example("audio_model")
    assert measured["codes that the networks by themselves find"] > 0.99
    target = measured["converted: likeness to p225"]
    assert target > measured["converted: likeness to the speaker"]
    assert measured["decoded: likeness to the speaker"] > measured["decoded: likeness to p225"]


def test_fashion_mnist_is_read_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    common = importlib.import_module("common")
    pixels = np.arange(2 * 28 * 28).astype(np.uint8)
    for part in ("train", "t10k"):
        path = tmp_path / f"{part}-images-idx3-ubyte.gz"
        path.write_bytes(gzip.compress(bytes(16) + pixels.tobytes()))
    monkeypatch.setattr(common, "FASHION_MNIST", tmp_path)
    name, train, test = common.load_images()
    assert (name, train.shape, test.shape) == ("Fashion-MNIST", (2, 1, 28, 28), (2, 1, 28, 28))
    assert train[1, 0, 5, 6].item() == pytest.approx(((28 + 5) * 28 + 6) % 256 / 255)


@pytest.mark.parametrize("name", SCRIPTS)
def test_examples_stay_short_and_have_a_page(name: str) -> None:
    lines = (EXAMPLES / f"{name}.py").read_text("utf-8").splitlines()
    assert len(lines) < 150
    assert f"python examples/{name}.py" in (FIGURES / f"{name}.md").read_text("utf-8")


def test_figures_stay_small() -> None:
    sizes = [path.stat().st_size for path in FIGURES.glob("*.png")]
    assert max(sizes) < 150_000
    assert sum(sizes) < 1_200_000
