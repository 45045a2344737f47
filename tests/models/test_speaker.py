"""Speaker vectors on their grid, and the file of enrolled voices."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from vqcodec.errors import SpeakerError
from vqcodec.models.speaker import SpeakerEncoder, SpeakerTable, to_grid
from vqcodec.models.speaker_vector import from_int8, guided, mean_vector, to_int8
from vqcodec.weights.voices import Speaker, VoicesFile, check_name, unknown_voice

FINGERPRINT, OTHER = b"\x01" * 8, b"\x02" * 8


def encoder() -> SpeakerEncoder:
    torch.manual_seed(0)
    return SpeakerEncoder(64, 8, 16000).eval().requires_grad_(False)


def clips(n_clips: int, n_samples: int = 16000) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.06 * torch.randn(n_clips, n_samples, generator=generator)


def test_stored_vectors_are_the_vectors():
    torch.manual_seed(0)
    # Scaled to unit RMS these would be 8 and -8, beyond the grid.
    lone = torch.zeros(2, 64)
    lone[:, 3] = torch.tensor([5.0, -5.0])
    vectors = torch.cat([to_grid(torch.randn(100, 64) * torch.rand(100, 1) * 9), to_grid(lone)])
    for vector in vectors:
        stored = to_int8(vector.numpy())
        assert stored.dtype == np.int8
        assert from_int8(stored).dtype == np.float32
        assert np.array_equal(from_int8(stored), vector.numpy())


def test_any_stored_vector_survives():
    stored = np.arange(-128, 128).astype(np.int8)
    assert np.array_equal(to_int8(from_int8(stored)), stored)


def test_the_grid_keeps_direction_and_passes_the_gradient():
    torch.manual_seed(0)
    vector = torch.randn(5, 64, requires_grad=True)
    on_grid = to_grid(vector)
    torch.testing.assert_close(on_grid.square().mean(-1), torch.ones(5), atol=0.02, rtol=0)
    assert (torch.cosine_similarity(on_grid, vector) > 0.999).all()
    (on_grid * torch.arange(64.0)).sum().backward()
    unit = vector.detach().clone().requires_grad_(True)
    (unit / unit.norm(dim=-1, keepdim=True) * 8 * torch.arange(64.0)).sum().backward()
    torch.testing.assert_close(vector.grad, unit.grad)


def test_a_mean_is_on_the_grid_of_the_networks():
    vectors = torch.randn(7, 3, 64, generator=torch.Generator().manual_seed(0))
    vectors[0, :, 3] = 50.0  # beyond the grid
    for some in vectors:
        expected = to_grid(some.mean(0, keepdim=True))[0]
        assert np.array_equal(from_int8(mean_vector(some.numpy())), expected.numpy())


def test_guidance_leads_from_the_source_beyond_the_target():
    target, source = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    led = guided(target, source)
    torch.testing.assert_close(led.norm(dim=-1), target.norm(dim=-1))
    cosine = torch.cosine_similarity
    assert (cosine(led, source) < cosine(target, source) - 0.1).all()
    assert (cosine(led, target) > 0.9).all()
    assert torch.equal(guided(target, target), target)
    assert torch.equal(guided(0 * target, 0 * target), 0 * target)
    np.testing.assert_allclose(guided(target.numpy(), source.numpy()), led, rtol=1e-6)


def test_the_encoder_hears_each_clip_for_itself():
    network, references = encoder(), clips(3)
    together = network(references)
    assert together.shape == (3, 64)
    for clip, vector in zip(references, together, strict=True):
        # Rounding may tip a value to the next step of the grid.
        torch.testing.assert_close(network(clip[None])[0], vector, atol=1 / 32, rtol=0)
        assert np.array_equal(from_int8(to_int8(vector.numpy())), vector.numpy())
    assert not torch.equal(together[0], together[1])


def test_the_encoder_takes_any_length_even_silence():
    network = encoder()
    for n_samples in (400, 8000, 50_001):
        assert network(clips(1, n_samples)).isfinite().all()
    assert network(torch.zeros(1, 8000)).isfinite().all()


def test_a_table_gives_a_row_on_the_grid():
    torch.manual_seed(0)
    table = SpeakerTable(5, 64)
    vectors = table(torch.tensor([4, 0, 4]))
    assert torch.equal(vectors[0], vectors[2])
    assert not torch.equal(vectors[0], vectors[1])
    assert np.array_equal(
        from_int8(to_int8(vectors[0].detach().numpy())), vectors[0].detach().numpy()
    )


def test_enrolled_voices_are_kept_for_each_model(tmp_path):
    path = tmp_path / "folder" / "voices.json"
    rng = np.random.default_rng(0)
    anna, ben, other = rng.integers(-128, 128, (3, 64)).astype(np.int8)
    voices = VoicesFile(path)
    assert voices.voices(FINGERPRINT) == {}
    voices.add(FINGERPRINT, Speaker(anna, "anna"))
    voices.add(FINGERPRINT, Speaker(ben, "bén"))
    voices.add(OTHER, Speaker(other, "anna"))
    kept = VoicesFile(path).voices(FINGERPRINT)
    assert list(kept) == ["anna", "bén"]
    assert np.array_equal(kept["anna"].vector, anna)
    assert np.array_equal(kept["bén"].vector, ben)
    assert np.array_equal(VoicesFile(path).voices(OTHER)["anna"].vector, other)
    VoicesFile(path).add(FINGERPRINT, Speaker(ben, "anna"))
    assert np.array_equal(VoicesFile(path).voices(FINGERPRINT)["anna"].vector, ben)


def voice(**changes) -> dict:
    vector = "AAAA" * 21 + "AA=="
    return {"model": "01" * 8, "name": "anna", "vector": vector} | changes


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        "{}",
        json.dumps({"format": "other", "version": 1, "voices": []}),
        json.dumps({"format": "vqcodec-voices", "version": 2, "voices": []}),
        json.dumps({"format": "vqcodec-voices", "version": 1, "voices": [{"name": "anna"}]}),
        json.dumps({"format": "vqcodec-voices", "version": 1, "voices": [voice(vector="AAAA")]}),
        json.dumps({"format": "vqcodec-voices", "version": 1, "voices": [voice(vector="?")]}),
    ],
)
def test_another_file_is_refused_and_not_overwritten(tmp_path, content):
    path = tmp_path / "voices.json"
    path.write_text(content)
    with pytest.raises(SpeakerError, match=r"voices\.json: not a readable voices file") as refusal:
        VoicesFile(path)
    assert "\n" not in str(refusal.value)
    assert path.read_text() == content


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "anna.wav", "a\nb", "é" * 33])
def test_names_that_could_be_paths_are_refused(name):
    with pytest.raises(SpeakerError, match="cannot name a voice"):
        check_name(name)
    assert check_name("Anna-Lena 2") == "Anna-Lena 2"


def test_a_mistyped_voice_is_answered_with_the_nearest():
    assert "voices like it: p225" in str(unknown_voice("p255x", ["p225", "anna"]))
    assert "there is no voice" in str(unknown_voice("p225", []))
