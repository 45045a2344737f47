"""The bottleneck against hand-written codebooks, and the library's quantizers behind it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vqcodec.models.config import QuantizerConfig
from vqcodec.models.quantizer import (
    LatentNorm,
    LibraryQuantizer,
    VectorQuantizer,
    build_quantizer,
)


def make(**changes) -> VectorQuantizer:
    """A started quantizer without an update, unless asked."""
    settings = {"dim": 8, "codebook_size": 16, "codebook_dim": 4, "decay": 0.9} | changes
    torch.manual_seed(0)
    quantizer = VectorQuantizer(QuantizerConfig(**settings))
    quantizer.initialized.fill_(True)
    return quantizer


def plain(codebook: list[list[float]], **changes) -> VectorQuantizer:
    """Latents are compared as they are with a hand-written codebook."""
    size, dim = len(codebook), len(codebook[0])
    quantizer = make(
        **{"dim": dim, "codebook_size": size, "codebook_dim": dim, "use_cosine_sim": False}
        | changes
    )
    with torch.no_grad():
        for projection in (quantizer.project_in, quantizer.project_out):
            projection.weight.copy_(torch.eye(dim))
            projection.bias.zero_()
        quantizer.codebook.copy_(torch.tensor(codebook))
        if quantizer.config.codebook_update == "ema":
            quantizer.cluster_sum.copy_(quantizer.codebook)
    return quantizer


def latents_of(vectors: list[list[float]]) -> torch.Tensor:
    """Rows -> (1, D, N), a leaf."""
    return torch.tensor(vectors).T[None].clone().requires_grad_(True)


@pytest.mark.parametrize("use_cosine_sim", [True, False])
def test_the_nearest_code_is_that_of_brute_force(use_cosine_sim):
    quantizer = make(use_cosine_sim=use_cosine_sim).eval()
    quantizer.codebook.copy_(torch.randn(16, 4) * torch.rand(16, 1) * 3)
    latents = torch.randn(3, 8, 50)
    projected = quantizer.project(latents)
    codebook = quantizer.codebook
    if use_cosine_sim:
        codebook = nn.functional.normalize(codebook, dim=-1)
        assert torch.allclose(projected.norm(dim=-1), torch.ones(3, 50))
    distances = (projected[..., None, :] - codebook).square().sum(-1)
    indices = quantizer(latents).indices
    assert indices.shape == (3, 1, 50)
    assert indices.dtype == torch.int64
    assert torch.equal(indices[:, 0], distances.argmin(-1))
    penalty = torch.rand(3, 50, 16)
    cheapest = (0.5 * distances + penalty).argmin(-1)
    assert not torch.equal(cheapest, indices[:, 0])
    assert torch.equal(quantizer.nearest(projected, penalty), cheapest)


@pytest.mark.parametrize("estimator", ["ste", "nsvq", "rotation"])
def test_evaluation_gives_exactly_what_decoding_gives(estimator):
    quantizer = make(estimator=estimator).eval()
    result = quantizer(torch.randn(2, 8, 30))
    assert torch.equal(result.quantized, quantizer.decode(result.indices))


def test_codes_survive_decoding_and_quantising_again():
    quantizer = plain([[0.0, 0.0], [1.0, 0.5], [-2.0, 1.0], [3.0, 3.0]]).eval()
    indices = torch.tensor([[[3, 0, 1, 2, 2, 1]]])
    assert torch.equal(quantizer(quantizer.decode(indices)).indices, indices)


CODEBOOK = [[1.0, 0.0, 0.5], [0.0, 2.0, 1.0], [-1.0, -1.0, 3.0]]
VECTORS = [[1.2, 0.3, 0.4], [0.1, 1.5, 1.5], [-0.5, -1.2, 2.0], [0.7, -0.4, 0.8]]
NEAREST = [0, 1, 2, 0]


def trained_forward(estimator: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Output and gradient of `VECTORS` as rows, and the gradient that was put in."""
    latents = latents_of(VECTORS)
    result = plain(CODEBOOK, estimator=estimator)(latents)
    assert result.indices[0, 0].tolist() == NEAREST
    incoming = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    result.quantized.backward(incoming.T[None])
    return result.quantized[0].T.detach(), latents.grad[0].T, incoming


def test_straight_through_passes_the_codebook_vector_and_the_gradient():
    output, gradient, incoming = trained_forward("ste")
    torch.testing.assert_close(output, torch.tensor(CODEBOOK)[NEAREST])
    assert torch.equal(gradient, incoming)


def test_rotation_is_the_matrix_of_the_paper():
    output, gradient, incoming = trained_forward("rotation")
    torch.testing.assert_close(output, torch.tensor(CODEBOOK)[NEAREST])
    for vector, index, got, put in zip(VECTORS, NEAREST, gradient, incoming, strict=True):
        e, q = torch.tensor(vector), torch.tensor(CODEBOOK[index])
        e_hat, q_hat = e / e.norm(), q / q.norm()
        r = (e_hat + q_hat) / (e_hat + q_hat).norm()
        matrix = torch.eye(3) - 2 * torch.outer(r, r) + 2 * torch.outer(q_hat, e_hat)
        matrix *= q.norm() / e.norm()
        torch.testing.assert_close(matrix @ e, q)
        torch.testing.assert_close(got, matrix.T @ put)


def test_nsvq_replaces_the_error_by_noise_of_its_size():
    output, gradient, _ = trained_forward("nsvq")
    vectors, chosen = torch.tensor(VECTORS), torch.tensor(CODEBOOK)[NEAREST]
    torch.testing.assert_close((output - vectors).norm(dim=1), (chosen - vectors).norm(dim=1))
    assert not torch.allclose(output, chosen, atol=1e-2)
    assert gradient.isfinite().all()


def test_ema_is_the_hand_computation():
    quantizer = plain([[0.0, 0.0], [4.0, 4.0]], decay=0.5, threshold_ema_dead_code=0.0)
    result = quantizer(latents_of([[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]))
    assert result.indices[0, 0].tolist() == [0, 0, 1]
    # Sizes: .5 * 1 + .5 * 2 and .5 * 1 + .5 * 1; sums: .5 * old + .5 * (of the frames).
    assert quantizer.cluster_size.tolist() == [1.5, 1.0]
    assert quantizer.cluster_sum.tolist() == [[0.5, 0.5], [4.5, 4.5]]
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[1 / 3, 1 / 3], [4.5, 4.5]]))
    # What was passed on is the codebook that chose, not the one that came of it.
    assert result.quantized[0].T.tolist() == [[0.0, 0.0], [0.0, 0.0], [4.0, 4.0]]


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_only_training_with_ema_moves_buffers(update):
    quantizer = make(codebook_update=update)
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}

    def changed() -> set[str]:
        state = quantizer.state_dict()
        return {name for name in state if not torch.equal(state[name], before[name])}

    quantizer.eval()(torch.randn(2, 8, 40))
    assert changed() == set()
    quantizer.train()(torch.randn(2, 8, 40))
    moved = {"codebook", "cluster_size", "cluster_sum"}
    assert changed() == (moved if update == "ema" else set())


def test_ema_follows_the_data():
    quantizer = plain([[1.0, 0.0], [0.0, 1.0]], decay=0.5)
    for _ in range(30):
        quantizer(latents_of([[3.0, 1.0], [1.0, 5.0]]))
    torch.testing.assert_close(quantizer.codebook, torch.tensor([[3.0, 1.0], [1.0, 5.0]]))


def test_the_codebook_loss_has_the_gradient_of_the_paper():
    quantizer = plain([[0.0, 0.0], [4.0, 4.0]], codebook_update="loss", commitment_weight=0.25)
    latents = latents_of([[1.0, 0.0], [0.0, 1.0], [5.0, 6.0]])
    loss = quantizer(latents).loss
    # Squared errors 1, 1 and 1 + 4, averaged; once for the codebook and 1/4 for the encoder.
    torch.testing.assert_close(loss, torch.tensor(1.25 * 7 / 3))
    loss.backward()
    torch.testing.assert_close(
        quantizer.codebook.grad, 2 / 3 * torch.tensor([[-1.0, -1.0], [-1.0, -2.0]])
    )
    torch.testing.assert_close(
        latents.grad[0].T, 0.25 * 2 / 3 * torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 2.0]])
    )


def test_ema_has_the_commitment_loss_alone():
    quantizer = plain([[0.0, 0.0], [4.0, 4.0]], commitment_weight=0.5)
    loss = quantizer(latents_of([[1.0, 0.0], [0.0, 1.0], [5.0, 6.0]])).loss
    torch.testing.assert_close(loss, torch.tensor(0.5 * 7 / 3))


def clusters(n_clusters: int, per_cluster: int) -> torch.Tensor:
    """Unit vectors around so many directions, in random order."""
    torch.manual_seed(3)
    centres = nn.functional.normalize(torch.randn(n_clusters, 4), dim=-1)
    vectors = centres.repeat(per_cluster, 1) + 0.02 * torch.randn(n_clusters * per_cluster, 4)
    return nn.functional.normalize(vectors[torch.randperm(len(vectors))], dim=-1)


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_the_k_means_start_fits_and_uses_every_code(update):
    quantizer = make(codebook_update=update)
    quantizer.initialized.fill_(False)
    vectors = clusters(16, 40)

    def distortion() -> float:
        chosen = quantizer.codebook[quantizer.nearest(vectors)]
        return (vectors - chosen).square().sum(-1).mean().item()

    before = distortion()
    quantizer.initialize(vectors)
    assert quantizer.initialized
    assert distortion() < 0.25 * before
    assert len(quantizer.nearest(vectors).unique()) == 16
    torch.testing.assert_close(quantizer.codebook.norm(dim=1), torch.ones(16))
    if update == "ema":
        # The statistics are those of the start: going on must not throw it away.
        torch.testing.assert_close(
            quantizer.cluster_sum, quantizer.codebook * quantizer.cluster_size[:, None]
        )
        assert quantizer.cluster_size.sum().item() == pytest.approx(16, rel=0.05)


def test_k_means_needs_a_vector_for_each_code():
    with pytest.raises(ValueError, match="at least 16 vectors, got 15"):
        make().initialize(torch.randn(15, 4))


def test_latents_pass_unquantised_before_the_start():
    quantizer = make()
    quantizer.initialized.fill_(False)
    before = quantizer.codebook.clone()
    latents = torch.randn(2, 8, 20, requires_grad=True)
    result = quantizer(latents)
    expected = quantizer.project_out(quantizer.project(latents)).transpose(1, 2)
    assert torch.equal(result.quantized, expected)
    assert result.loss == 0
    assert torch.equal(quantizer.codebook, before)


def test_a_dead_code_comes_back_where_the_data_are():
    data = [[0.0, 0.1], [0.1, 0.0], [5.0, 5.0], [5.1, 5.0]]
    quantizer = plain([[0.0, 0.0], [100.0, 100.0]], decay=0.5, threshold_ema_dead_code=0.3)
    quantizer.cluster_size.copy_(torch.tensor([4.0, 0.0]))
    assert quantizer(latents_of(data)).indices.unique().tolist() == [0]
    assert quantizer.codebook[1].tolist() in [pytest.approx(frame) for frame in data]
    assert quantizer.cluster_size[1] == pytest.approx(quantizer.cluster_size.mean(), rel=0.5)
    for _ in range(20):
        result = quantizer(latents_of(data))
    assert result.indices[0, 0, 0] == result.indices[0, 0, 1]
    assert result.indices[0, 0, 2] == result.indices[0, 0, 3]
    assert len(result.indices.unique()) == 2


def test_autocast_changes_no_code():
    quantizer = make().eval()
    latents = torch.randn(2, 8, 200)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = quantizer(latents)
    assert result.quantized.dtype == torch.float32
    assert torch.equal(result.indices, quantizer(latents).indices)


def test_latent_norm_is_batch_normalisation():
    torch.manual_seed(0)
    ours = LatentNorm(6)
    theirs = nn.BatchNorm1d(6, affine=False, momentum=LatentNorm.MOMENTUM)
    for _ in range(5):
        x = 3 * torch.randn(4, 6, 50) + torch.arange(6.0)[:, None]
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.mean[:, 0], theirs.running_mean)
    # torch keeps the unbiased variance: 200 frames make a factor of 200 / 199.
    torch.testing.assert_close(ours.variance[:, 0], theirs.running_var, rtol=6e-3, atol=0)
    before = ours.mean.clone()
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x), atol=2e-2, rtol=1e-2)
    assert torch.equal(ours.mean, before)


LIBRARY = {
    "residual_vq": ({"num_quantizers": 3, "codebook_dim": 4}, 3),
    "grouped_residual_vq": ({"num_quantizers": 2, "groups": 2, "codebook_dim": 4}, 4),
    "fsq": ({"levels": (4, 4)}, 1),
}
SHARED = {"num_quantizers": 3, "codebook_dim": 4, "shared_codebook": True}


@pytest.mark.parametrize(
    ("kind", "settings", "n_codebooks"),
    [*((kind, *rest) for kind, rest in LIBRARY.items()), ("residual_vq", SHARED, 3)],
)
def test_the_library_keeps_the_interface(kind, settings, n_codebooks):
    config = QuantizerConfig(kind=kind, dim=8, codebook_size=16, **settings)
    assert config.n_codebooks == n_codebooks
    torch.manual_seed(0)
    quantizer = build_quantizer(config)
    assert isinstance(quantizer, LibraryQuantizer)
    latents = torch.randn(2, 8, 40, requires_grad=True)
    trained = quantizer(latents)
    (trained.quantized.square().mean() + trained.loss).backward()
    assert latents.grad.abs().sum() > 0
    assert trained.loss.shape == ()
    quantizer.eval()
    quantized, indices, _ = quantizer(latents.detach())
    assert quantized.shape == (2, 8, 40)
    assert indices.shape == (2, n_codebooks, 40)
    assert indices.dtype == torch.int64
    assert indices.min() >= 0
    assert indices.max() < 16
    assert len(indices.unique()) > 1
    torch.testing.assert_close(quantizer.decode(indices), quantized, atol=1e-5, rtol=1e-4)


def test_a_shared_codebook_is_one():
    layers = build_quantizer(
        QuantizerConfig(kind="residual_vq", dim=8, codebook_size=16, **SHARED)
    ).quantizer.layers
    assert len(layers) == 3
    assert len({id(layer._codebook) for layer in layers}) == 1
    with pytest.raises(ValueError, match="kind vq has no shared_codebook; kind residual_vq has"):
        QuantizerConfig(shared_codebook=True)


def test_fsq_levels_must_make_the_codebook_size():
    with pytest.raises(ValueError, match=r"levels \[4, 4\] make 16 codes, codebook_size says 512"):
        QuantizerConfig(kind="fsq", levels=(4, 4))
