from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_priors import SMALL, transformer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model

import vqcodec
from vqcodec import Codes, Speaker, prior
from vqcodec.errors import CheckpointError, CodesError, SpeakerError, VqcodecError
from vqcodec.models.code_transformer import CodeTransformer
from vqcodec.models.speaker_vector import from_int8
from vqcodec.prior import Prior, _drawn
from vqcodec.weights import checkpoint, prior_checkpoint


@pytest.fixture(scope="module")
def model() -> CodeTransformer:
    return transformer(SMALL, 16)


@pytest.fixture(scope="module")
def small_prior(codec: vqcodec.Codec) -> Prior:
    """Of a codec with 512 codes, of which the training data had the first hundred."""
    histogram = np.where(np.arange(512) < 100, np.arange(1, 513), 0)
    return Prior(transformer(SMALL, 512), histogram, np.ones(prior.N_BINS, int), codec, {})


@pytest.fixture
def voice(codec: vqcodec.Codec) -> Speaker:
    return codec.voices["anna"]


def next_logits(model: CodeTransformer, codes: list[int], speaker: Speaker) -> torch.Tensor:
    previous = torch.tensor([[model.begin, *codes]])
    return model(previous, torch.from_numpy(from_int8(speaker.vector))[None])[0, -1]


# --- sampling --------------------------------------------------------------------------------


def redrawn(
    prior: Prior, codes: list[int], n_known: int, voice: Speaker, temperature: float
) -> list[int]:
    """What the seed 0 draws after some known codes if each draw sees one pass over all before."""
    rng = np.random.default_rng(0)
    return [
        _drawn(next_logits(prior.model, codes[:n], voice).numpy(), rng, temperature, None, 1.0)
        for n in range(n_known, len(codes))
    ]


def test_draws_see_all_codes_in_reach(small_prior: Prior, voice: Speaker) -> None:
    codes = small_prior.sample(0.3, speaker=voice, temperature=2).codes[0].tolist()
    assert len(codes) == 38  # three contexts: the cache has rolled over
    assert len(set(codes)) > 20
    assert codes == redrawn(small_prior, codes, 0, voice, 2)


@pytest.mark.parametrize("n_samples", [100, 4000])  # in reach of the beginning, and beyond
def test_a_prompt_is_continued(small_prior: Prior, voice: Speaker, n_samples: int) -> None:
    noise = np.random.default_rng(0).standard_normal(n_samples).astype(np.float32)
    prompt = small_prior.codec.encode(0.1 * noise, 16000)
    made = small_prior.sample(0.1, speaker=voice, temperature=2, prompt=prompt)
    assert (made.n_codes, made.gain) == (prompt.n_codes + 13, prompt.gain)
    assert (made.codes[:, : prompt.n_codes] == prompt.codes).all()
    codes = made.codes[0].tolist()
    assert codes[prompt.n_codes :] == redrawn(small_prior, codes, prompt.n_codes, voice, 2)


def test_one_candidate_is_the_likeliest(small_prior: Prior, voice: Speaker) -> None:
    likeliest = next_logits(small_prior.model, [], voice).argmax()
    for only in ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-6}):
        assert small_prior.sample(0.008, speaker=voice, **only).codes.tolist() == [[likeliest]]


def test_codes_can_be_decoded_and_kept(small_prior: Prior, voice: Speaker, tmp_path: Path) -> None:
    codes = small_prior.sample(0.2, speaker=voice)
    named = small_prior.codec.voices["p225"]
    assert small_prior.sample(0.2, speaker="p225") == small_prior.sample(0.2, speaker=named)
    assert small_prior.codec.decode(codes).shape == (3200,)
    codes.save(tmp_path / "made.codes")
    assert Codes.load(tmp_path / "made.codes") == codes
    assert (codes.speaker == voice.vector).all()


@pytest.mark.parametrize("scheme", ["prior", "histogram", "uniform"])
def test_same_seed_same_codes(small_prior: Prior, voice: Speaker, scheme: prior.Scheme) -> None:
    first, again, other = (
        small_prior.sample(0.5, speaker=voice, scheme=scheme, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_draws_do_not_depend_on_the_number_of_threads(small_prior: Prior, voice: Speaker) -> None:
    n_threads = torch.get_num_threads()
    made = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            made.append(small_prior.sample(0.5, speaker=voice))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(n_threads)
    assert made[0] == made[1]


def drawn(prior: Prior, voice: Speaker, **options: Any) -> np.ndarray:
    """Relative frequency of each of the 512 codes among 5000 draws."""
    codes = prior.sample(40, speaker=voice, **options).codes[0]
    return np.bincount(codes, minlength=512) / len(codes)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scheme": "uniform"}, lambda counts: np.ones(512)),
        ({"scheme": "histogram"}, lambda counts: counts),
        ({"scheme": "histogram", "temperature": 0.5}, lambda counts: counts**2),
        ({"scheme": "histogram", "top_k": 20}, lambda counts: counts * (counts > 80)),
        ({"scheme": "histogram", "top_p": 0.5}, lambda counts: counts * (counts > 70)),
    ],
    ids=["uniform", "histogram", "temperature", "top_k", "top_p"],
)
def test_draws_have_the_wanted_frequencies(
    small_prior: Prior,
    voice: Speaker,
    options: dict[str, Any],
    expected: Callable[[np.ndarray], np.ndarray],
) -> None:
    found = drawn(small_prior, voice, **options)
    wanted = expected(small_prior.histogram.astype(float))
    wanted /= wanted.sum()
    assert (found[wanted == 0] == 0).all()
    deviation = np.sqrt(wanted * (1 - wanted) / 5000)
    assert (np.abs(found - wanted) <= 5 * deviation).all()


@pytest.mark.parametrize(
    "options",
    [{"seconds": 0}, {"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.1}],
    ids=str,
)
def test_impossible_draws_are_refused(
    small_prior: Prior, voice: Speaker, options: dict[str, Any]
) -> None:
    (value,) = options.values()
    with pytest.raises(VqcodecError, match=rf"{next(iter(options))} {value}.* must be"):
        small_prior.sample(**{"seconds": 1, "speaker": voice, **options})


# --- files -----------------------------------------------------------------------------------


@pytest.fixture
def file(small_prior: Prior, tmp_path: Path) -> Path:
    path = tmp_path / "prior.safetensors"
    prior_checkpoint.save(
        path,
        small_prior.model,
        small_prior.histogram,
        typical=small_prior.typical,
        fingerprint=small_prior.codec.fingerprint,
        provenance={"corpus": "none"},
    )
    return path


def test_a_file_holds_the_prior(small_prior: Prior, voice: Speaker, file: Path) -> None:
    loaded = prior.load(small_prior.codec, file)
    assert loaded.model.config == SMALL
    assert loaded.provenance == {"corpus": "none"}
    assert (loaded.typical == small_prior.typical).all()
    assert (loaded.histogram == small_prior.histogram).all()
    codes = small_prior.sample(0.5, speaker=voice)
    np.testing.assert_allclose(loaded.bits(codes), small_prior.bits(codes), atol=0.1)


def test_a_packaged_prior_is_found_by_its_codec(
    small_prior: Prior, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = small_prior.codec
    with pytest.raises(CheckpointError, match=r"tiny: no prior is packaged .*--prior"):
        prior.load(codec)
    (tmp_path / "priors").mkdir()
    file.rename(tmp_path / "priors" / "tiny.safetensors")
    monkeypatch.setattr("importlib.resources.files", lambda _: tmp_path)
    assert prior.load(codec).model.config == SMALL


def test_another_codecs_prior_is_refused(file: Path, tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "other.safetensors", seed=1)
    other = vqcodec.load(tmp_path / "other.safetensors", device="cpu")
    with pytest.raises(CheckpointError, match=r"prior\.safetensors: knows the codes of model"):
        prior.load(other, file)


def test_another_models_codes_are_refused(
    small_prior: Prior, voice: Speaker, tmp_path: Path
) -> None:
    save_tiny_model(tmp_path / "other.safetensors", seed=1)
    other = vqcodec.load(tmp_path / "other.safetensors", device="cpu")
    codes = other.encode(np.zeros(1600, np.float32), 16000)
    with pytest.raises(CodesError, match="these codes were made by model"):
        small_prior.bits(codes)
    with pytest.raises(CodesError, match="these codes were made by model"):
        small_prior.sample(1, speaker=voice, prompt=codes)


def changed(path: Path, **metadata: str) -> None:
    with safe_open(path, framework="pt") as file:
        kept = dict(file.metadata())
    save_file(load_file(path), path, {**kept, **metadata})


def test_damaged_files_are_refused(codec: vqcodec.Codec, file: Path) -> None:
    whole = file.read_bytes()
    middle = len(whole) // 2
    for damaged, fault in (
        (whole[:-10], "not a readable model file"),
        (whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :], "SHA-256"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=rf"prior\.safetensors: .*{fault}"):
            prior.load(codec, file)
    file.write_bytes(whole)
    for change, fault in (
        ({"config": "{}"}, "SHA-256"),
        ({"provenance": "{}"}, "SHA-256"),
        ({"fingerprint": "00" * 8}, "SHA-256"),
        ({"version": "2"}, "prior format 2 is newer than 1: upgrade vqcodec"),
        ({"version": "?"}, "damaged"),
        ({"format": "vqcodec-model"}, "not a vqcodec-prior file"),
    ):
        file.write_bytes(whole)
        changed(file, **change)
        with pytest.raises(CheckpointError, match=rf"prior\.safetensors: .*{fault}"):
            prior.load(codec, file)
    with pytest.raises(CheckpointError, match="none: no such file"):
        prior.load(codec, file.with_name("none"))


def test_a_prior_is_no_model(file: Path) -> None:
    with pytest.raises(CheckpointError, match="not a vqcodec-model file"):
        checkpoint.load(file)


# --- scores ----------------------------------------------------------------------------------


def test_bits_are_those_of_the_codes_own_speaker(small_prior: Prior, speech: Path) -> None:
    codec = small_prior.codec
    codes, named = codec.encode(speech), codec.encode(speech, speaker="anna")
    assert small_prior.bits(codes).shape == (codes.n_codes,)
    expected = small_prior.model.bits(
        torch.from_numpy(codes.codes[0].astype(np.int64)),
        torch.from_numpy(from_int8(codec.voices["anna"].vector)),
    )
    np.testing.assert_allclose(small_prior.bits(named), expected.numpy(), atol=1e-4)
    assert not np.allclose(small_prior.bits(codes), small_prior.bits(named), atol=1e-2)


def test_bits_are_counted_in_sixteenths() -> None:
    counts = prior.binned(np.array([0, 0.06, 0.07, 31.9, 32, 1000], np.float32))
    assert counts.shape == (512,)
    assert {int(i): int(counts[i]) for i in np.flatnonzero(counts)} == {0: 2, 1: 1, 510: 1, 511: 2}


def test_the_anomaly_is_in_being_less_usual_either_way(small_prior: Prior, speech: Path) -> None:
    codes = small_prior.codec.encode(speech)
    bits = small_prior.bits(codes)

    def anomaly(of_speech: np.ndarray) -> float:
        typical = prior.binned(of_speech)
        known = Prior(small_prior.model, small_prior.histogram, typical, small_prior.codec, {})
        return known.score(codes).anomaly

    assert small_prior.score(codes).bits_per_code == pytest.approx(bits.mean())
    assert anomaly(bits) == anomaly(np.tile(bits, 3)) == 0
    assert anomaly(np.full(9, 31)) == anomaly(np.zeros(9)) == 1
    half = np.sort(bits)[: len(bits) // 2]
    assert anomaly(half) == pytest.approx(0.5, abs=0.05)


def test_codes_that_name_an_unknown_voice_have_no_bits(small_prior: Prior, speech: Path) -> None:
    named = replace(small_prior.codec.encode(speech), speaker="nobody")
    with pytest.raises(SpeakerError, match="nobody: neither a voice nor a recording"):
        small_prior.bits(named)
