"""The bottleneck: every latent vector is replaced by its nearest codebook vector.

`VectorQuantizer` is the quantizer of van den Oord et al. 2017 (arXiv 1711.00937, sections 3.1-3.2
and appendix A.1) with what later work found necessary to keep the codebook alive: comparison in a
low-dimensional, L2-normalised space (Yu et al. 2022, arXiv 2110.04627), a k-means start, and
restarts of dead codes (Dhariwal et al. 2020, arXiv 2005.00341). Every other quantizer comes from
vector-quantize-pytorch through `LibraryQuantizer`, behind the same interface.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable_dist
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.extras import library
from vqcodec.models.config import QuantizerConfig
from vqcodec.models.interfaces import Margins, Quantized, Quantizer

KMEANS_ITERATIONS = 20


def _all_reduce(x: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(x)
    return x


def _all_gather(x: Tensor) -> Tensor:
    """Rows of every process, in order of rank."""
    if not dist.is_initialized():
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


class LatentNorm(nn.Module):
    """Batch normalisation without affine parameters, over every process's batch.

    Without it the latents' scale drifts against the codebook. torch's SyncBatchNorm does the same
    but only on GPUs.
    """

    MOMENTUM, EPSILON = 0.05, 1e-5
    mean: Tensor
    variance: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim, 1))
        self.register_buffer("variance", torch.ones(dim, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, N) -> (B, D, N) float32; batch statistics in training, running ones else."""
        x = x.float()
        mean, variance = self.mean, self.variance
        if self.training:
            moments = torch.stack([x.mean((0, 2)), x.square().mean((0, 2))])[..., None]
            if dist.is_initialized():
                moments = differentiable_dist.all_reduce(moments) / dist.get_world_size()
            mean, variance = moments[0], moments[1] - moments[0].square()
            with torch.no_grad():
                self.mean.lerp_(mean, self.MOMENTUM)
                self.variance.lerp_(variance, self.MOMENTUM)
        return (x - mean) * (variance.clamp(min=0) + self.EPSILON).rsqrt()


class VectorQuantizer(nn.Module):
    """One codebook, nearest neighbour, float32 whatever the autocast.

    Until `initialize` is called latents pass unquantised (through the same projections): training
    starts that way, because a codebook that meets an untrained encoder collapses.
    """

    codebook: Tensor
    cluster_size: Tensor
    cluster_sum: Tensor
    initialized: Tensor

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        shape = (config.codebook_size, config.codebook_dim)
        self.project_in = nn.Linear(config.dim, config.codebook_dim)
        self.project_out = nn.Linear(config.codebook_dim, config.dim)
        codebook = self._normalize(torch.randn(shape))
        if config.codebook_update == "loss":
            self.codebook = nn.Parameter(codebook)
        else:
            self.register_buffer("codebook", codebook)
            self.register_buffer("cluster_size", torch.ones(config.codebook_size))
            self.register_buffer("cluster_sum", codebook.clone())
        self.register_buffer("initialized", torch.tensor(False))

    def _normalize(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) if self.config.use_cosine_sim else x

    def project(self, latents: Tensor) -> Tensor:
        """(B, D, N) -> (B, N, codebook_dim), the space in which codes are compared."""
        return self._normalize(self.project_in(latents.float().transpose(1, 2)))

    def nearest(self, projected: Tensor, penalty: Tensor | None = None) -> Tensor:
        """(..., codebook_dim) of `project` -> (...) int64, numbers of nearest codebook vectors.

        A penalty (..., codebook_size) is added to half of each squared distance.
        """
        # A processor keeps the few rows at hand, a GPU wants many; all at once may be gigabytes.
        n_rows = 32 if projected.device.type == "cpu" else 1 << 14
        vectors = projected.flatten(0, -2).split(n_rows)
        closeness = map(self._compare(), vectors)
        if penalty is not None:
            closeness = map(torch.sub, closeness, penalty.flatten(0, -2).split(n_rows))
        return torch.cat([x.max(-1).indices for x in closeness]).view(projected.shape[:-1])

    def margins(self, latents: Tensor) -> Margins:
        """(B, D, N) -> the nearest codes, and by how much each wins over the second nearest."""
        projected = self.project(latents)
        best = self.closeness(projected).topk(2, dim=-1)
        nearest, second = best.values.unbind(-1)
        distances = projected.square().sum(-1) - 2 * nearest
        return Margins(best.indices[..., 0][:, None], nearest - second, distances)

    def closeness(self, projected: Tensor) -> Tensor:
        """(..., codebook_dim) -> (..., codebook_size): the larger, the nearer."""
        return self._compare()(projected)

    def _compare(self) -> Callable[[Tensor], Tensor]:
        """`closeness`, which differs from minus half a squared distance by what codes share."""
        codebook = self._normalize(self.codebook)
        # |x - e|^2 = |x|^2 - 2 x.e + |e|^2, of which |x|^2 is the same for every e.
        rows = torch.cat([codebook, -0.5 * codebook.square().sum(-1, keepdim=True)], dim=-1)
        return lambda projected: F.pad(projected, (0, 1), value=1.0) @ rows.T

    def forward(self, latents: Tensor) -> Quantized:
        """(B, D, N) -> quantized (B, D, N), indices (B, 1, N), loss."""
        with torch.autocast(latents.device.type, enabled=False):
            projected = self.project(latents)
            indices = self.nearest(projected)
            if not self.initialized:
                passed = self.project_out(projected).transpose(1, 2)
                return Quantized(passed, indices[:, None], projected.new_zeros(()))
            # Before the update, which may move a vector away or restart it somewhere else.
            chosen = self.vectors(indices)
            if self.training and self.config.codebook_update == "ema":
                self._update_codebook(projected.detach().flatten(0, 1), indices.flatten())
            loss = self.config.commitment_weight * _distance(projected, chosen.detach())
            if self.training and self.config.codebook_update == "loss":
                loss = loss + _distance(projected.detach(), chosen)
            passed = self._estimate(projected, chosen.detach()) if self.training else chosen
            return Quantized(self.project_out(passed).transpose(1, 2), indices[:, None], loss)

    def decode(self, indices: Tensor) -> Tensor:
        """Indices (B, 1, N) -> latents (B, D, N)."""
        return self.project_out(self.vectors(indices[:, 0])).transpose(1, 2)

    def vectors(self, indices: Tensor) -> Tensor:
        """Indices (...) -> the codebook's vectors (..., codebook_dim), as `project` makes them."""
        return F.embedding(indices, self._normalize(self.codebook))

    def quantize(self, vectors: Tensor, penalty: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Quantise vectors that need not be of unit length, with a straight-through gradient.

        From (B, N, codebook_dim), otherwise as of `project`, to latents (B, D, N) and indices (B,
        1, N); the penalty is that of `nearest`.
        """
        projected = self._normalize(vectors)
        indices = self.nearest(projected.detach(), penalty)
        passed = projected + (self.vectors(indices) - projected).detach()
        return self.project_out(passed).transpose(1, 2), indices[:, None]

    def _estimate(self, x: Tensor, chosen: Tensor) -> Tensor:
        """`chosen` in the forward pass (NSVQ: nearly), with a gradient for `x`."""
        match self.config.estimator:
            case "ste":
                return x + (chosen - x).detach()
            case "nsvq":
                # Vali and Backstrom 2022: noise as large as the quantisation error.
                noise = F.normalize(torch.randn_like(x), dim=-1)
                return x + (chosen - x).norm(dim=-1, keepdim=True) * noise
            case "rotation":
                return _rotate(x, chosen)

    @torch.no_grad()
    def initialize(self, vectors: Tensor) -> None:
        """K-means start: the codebook becomes the centres of vectors of `project`.

        They are (M, codebook_dim), of several batches; ValueError if M is less than codebook_size.
        """
        size = self.config.codebook_size
        vectors = _all_gather(vectors)
        if len(vectors) < size:
            raise ValueError(f"k-means needs at least {size} vectors, got {len(vectors)}")
        centres = vectors[torch.linspace(0, len(vectors) - 1, size).long()].clone()
        counts = torch.ones(size, device=vectors.device)
        for _ in range(KMEANS_ITERATIONS):
            self.codebook.copy_(centres)
            indices = self.nearest(vectors)
            counts = torch.bincount(indices, minlength=size).float()
            sums = torch.zeros_like(centres).index_add_(0, indices, vectors)
            used = counts > 0
            centres[used] = self._normalize(sums[used] / counts[used, None])
        self.codebook.copy_(centres)
        if self.config.codebook_update == "ema":
            # Counts are kept at the scale that a batch of `size` vectors would give.
            self.cluster_size.copy_(counts * (size / counts.sum())).clamp_(min=0.1)
            self.cluster_sum.copy_(centres * self.cluster_size[:, None])
        self.initialized.fill_(True)

    @torch.no_grad()
    def _update_codebook(self, vectors: Tensor, indices: Tensor) -> None:
        """Appendix A.1, eq. 6-8, then restarts; statistics are those of all processes."""
        size, decay = self.config.codebook_size, self.config.decay
        counts = _all_reduce(torch.bincount(indices, minlength=size).float())
        sums = _all_reduce(torch.zeros_like(self.cluster_sum).index_add_(0, indices, vectors))
        self.cluster_size.lerp_(counts, 1 - decay)
        self.cluster_sum.lerp_(sums, 1 - decay)
        mean_size = self.cluster_size.mean()
        dead = self.cluster_size < self.config.threshold_ema_dead_code * mean_size
        if dead.any():
            pool = _all_gather(vectors)
            # Evenly spaced frames of the batch: as varied as random ones, and reproducible.
            picks = torch.linspace(0, len(pool) - 1, int(dead.sum()) + 2).long()[1:-1]
            self.cluster_size[dead] = mean_size
            self.cluster_sum[dead] = pool[picks] * mean_size
        centres = self.cluster_sum / self.cluster_size[:, None].clamp(min=1e-6)
        self.codebook.copy_(self._normalize(centres))


def _distance(x: Tensor, target: Tensor) -> Tensor:
    """Mean over frames of the squared Euclidean distance (eq. 3 of the paper)."""
    return (x - target).square().sum(-1).mean()


def _rotate(x: Tensor, target: Tensor) -> Tensor:
    """The rotation trick (Fifty et al. 2024, arXiv 2410.06424, section 4.2).

    The gradient reaches `x` through the rotation and scaling that carries x to `target`, both
    held constant, and so keeps the angle it has to the codebook vector.
    """
    norm_x = x.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    norm_target = target.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    u, v = (x / norm_x).detach(), target / norm_target
    middle = F.normalize(u + v, dim=-1)
    reflected = x - 2 * (x * middle).sum(-1, keepdim=True) * middle
    rotated = reflected + 2 * (x * u).sum(-1, keepdim=True) * v
    return rotated * (norm_target / norm_x).detach()


class LibraryQuantizer(nn.Module):
    """ResidualVQ, GroupedResidualVQ or FSQ of vector-quantize-pytorch.

    They start by themselves (`kmeans_init`), so there is no `initialize`. Settings that a quantizer
    does not know are not used; a code is dead to the library if fewer than
    `threshold_ema_dead_code` vectors of a batch take it.
    """

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        # Imported here: it takes half a second, and the default model does not need it.
        package = library("vector_quantize_pytorch")
        self.config = config
        size, dim = config.codebook_size, config.dim
        residual = {
            "codebook_dim": config.codebook_dim,
            "decay": config.decay,
            "commitment_weight": config.commitment_weight,
            "kmeans_init": True,
            "threshold_ema_dead_code": config.threshold_ema_dead_code,
            "use_cosine_sim": config.use_cosine_sim,
            "rotation_trick": config.estimator == "rotation",
        }
        self.quantizer: Any
        match config.kind:
            case "residual_vq":
                self.quantizer = package.ResidualVQ(
                    dim=dim,
                    codebook_size=size,
                    num_quantizers=config.num_quantizers,
                    shared_codebook=config.shared_codebook,
                    **residual,
                )
            case "grouped_residual_vq":
                self.quantizer = package.GroupedResidualVQ(
                    dim=dim,
                    codebook_size=size,
                    groups=config.groups,
                    num_quantizers=config.num_quantizers,
                    **residual,
                )
            case "fsq":
                self.quantizer = package.FSQ(list(config.levels), dim=dim)
            case _:
                raise ValueError(f"kind {config.kind!r} is not vector-quantize-pytorch's")

    def forward(self, latents: Tensor) -> Quantized:
        """(B, D, N) -> quantized (B, D, N), indices (B, Q, N), loss."""
        with torch.autocast(latents.device.type, enabled=False):
            result = self.quantizer(latents.float().transpose(1, 2))
        quantized, indices, *losses = result
        loss = losses[0].sum() if losses else quantized.new_zeros(())
        match self.config.kind:
            case "residual_vq":
                indices = indices.permute(0, 2, 1)
            case "grouped_residual_vq":
                indices = indices.permute(1, 0, 3, 2).flatten(1, 2)
            case _:
                indices = indices[:, None]
        return Quantized(quantized.transpose(1, 2), indices.long(), loss)

    def margins(self, latents: Tensor) -> Margins:
        """(B, D, N) -> codes; the library does not tell how sure they are."""
        indices = self(latents).indices
        infinite = latents.new_full((len(latents), latents.shape[-1]), float("inf"))
        return Margins(indices, infinite, infinite[:, :0])

    def decode(self, indices: Tensor) -> Tensor:
        """Indices (B, Q, N) -> latents (B, D, N)."""
        match self.config.kind:
            case "residual_vq":
                latents = self.quantizer.get_output_from_indices(indices.permute(0, 2, 1))
            case "grouped_residual_vq":
                grouped = indices.unflatten(1, (self.config.groups, -1)).permute(1, 0, 3, 2)
                latents = self.quantizer.get_output_from_indices(grouped)
            case _:
                latents = self.quantizer.indices_to_codes(indices[:, 0])
        return latents.transpose(1, 2)


def build_quantizer(config: QuantizerConfig) -> Quantizer:
    """The quantizer that `config` describes."""
    return VectorQuantizer(config) if config.kind == "vq" else LibraryQuantizer(config)
