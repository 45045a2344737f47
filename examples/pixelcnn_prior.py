"""A convolutional VQ-VAE of images, and priors over its 7 x 7 codes: a PixelCNN and vqcodec's."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import common
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models.config import QuantizerConfig

CODEBOOK_SIZE, SIDE = 64, 7
Pairs = Iterator[tuple[Tensor, Tensor]]


class MaskedConv(nn.Conv2d):
    """Sees what comes before in reading order, and with `own` the place itself."""

    def __init__(self, width: int, kernel: int, *, own: bool) -> None:
        super().__init__(width, width, kernel, padding=kernel // 2)
        self.mask = (torch.arange(kernel**2) < kernel**2 // 2 + own).view(kernel, kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> the same shape."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class PixelCNN(nn.Module):
    """Of van den Oord et al. 2016 (arXiv 1601.06759), over codes in place of pixels."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(CODEBOOK_SIZE, width)
        layers: list[nn.Module] = [MaskedConv(width, 7, own=False), nn.ReLU()]
        for _ in range(3):
            layers += [MaskedConv(width, 3, own=True), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, CODEBOOK_SIZE, 1))

    def forward(self, codes: Tensor) -> Tensor:
        """(B, N) -> logits (B, N, K) of every code given those before it."""
        grid = self.embedding(codes).unflatten(1, (SIDE, SIDE)).permute(0, 3, 1, 2)
        logits: Tensor = self.layers(grid).flatten(2).transpose(1, 2)
        return logits


def bits(prior: nn.Module, codes: Tensor) -> Tensor:
    """Mean information of a code of (B, N)."""
    return F.cross_entropy(prior(codes).flatten(0, 1), codes.flatten()) / math.log(2)


def ancestral(prior: nn.Module, count: int) -> Tensor:
    """Draw codes (count, N) one after another, each given those before it."""
    codes = torch.zeros(count, SIDE * SIDE, dtype=torch.long)
    for place in range(SIDE * SIDE):
        codes[:, place] = prior(codes)[:, place].softmax(-1).multinomial(1)[:, 0]
    return codes


def losses(decoder: nn.Module, pairs: Pairs, *, adversarial: bool) -> Iterator[Tensor]:
    """Of latents and their images: squared error, and what a critic sees and says of them."""
    first, second = nn.Conv2d(1, 32, 4, 2), nn.Conv2d(32, 64, 4, 2)
    features = nn.Sequential(first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2))
    critic = nn.Sequential(features, nn.Conv2d(64, 1, 3))
    optimizer = torch.optim.Adam(critic.parameters(), 5e-4, betas=(0.5, 0.9))
    for latents, true in pairs:
        decoded = decoder(latents)
        loss = F.mse_loss(decoded, true)
        if adversarial:
            optimizer.zero_grad()
            hinge = F.relu(1 - critic(true)) + F.relu(1 + critic(decoded.detach()))
            hinge.mean().backward()
            optimizer.step()
            unlike = F.l1_loss(features(decoded), features(true).detach())
            loss = loss + 0.03 * unlike - 0.01 * critic(decoded).mean()
        yield loss


def pixel_bits(decoded: Tensor, images: Tensor, spread: Tensor) -> float:
    """Mean information of a pixel of 256 levels, by a Gaussian about the decoded one."""
    below, above = ((images + half / 255 - decoded) / spread for half in (-0.5, 0.5))
    up_to = torch.special.ndtr(above).where(images < 1, 1.0)
    inside = up_to - torch.special.ndtr(below).where(images > 0, 0.0)
    return -inside.clamp(min=1e-9).log2().mean().item()


def contrast(images: Tensor) -> float:
    """Mean difference of neighbours: blurred images have less of it."""
    return (images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()).item() / 2


def run(folder: Path, *, quick: bool = False) -> common.Measured:
    """Codes, four ways to draw new ones, and a decoder that is taught not to blur."""
    torch.manual_seed(0)
    data, steps = common.load_images(), 40 if quick else 800
    known, held_out = data.train[: 500 if quick else 10_000], data.test[:1000]
    quantizer = common.ImageQuantizer(QuantizerConfig(codebook_size=CODEBOOK_SIZE), steps // 10)
    model = common.conv_vqvae(1, 32, quantizer)
    errors = common.fit(model, common.batches(known, steps), steps)
    with torch.no_grad():
        grids, new_grids = model(known).codes, model(held_out).codes
        latents, new_latents = quantizer.decode(grids), quantizer.decode(new_grids)
    codes, new_codes = grids.flatten(1), new_grids.flatten(1)

    counts = codes.flatten().bincount(minlength=CODEBOOK_SIZE) + 1.0
    drawn = {
        "uniform": torch.randint(CODEBOOK_SIZE, (24, SIDE**2)),
        "histogram": counts.expand(24, -1).multinomial(SIDE**2, replacement=True),
    }
    per_code = {
        "uniform": math.log2(CODEBOOK_SIZE),
        "histogram": -(counts / counts.sum())[new_codes].log2().mean().item(),
    }
    priors = {"PixelCNN": PixelCNN(), "transformer": common.GridPrior(CODEBOOK_SIZE, SIDE**2)}
    for name, prior in priors.items():
        common.minimize(prior, (bits(prior, some) for some in common.batches(codes, steps)), steps)
        with torch.no_grad():
            drawn[name], per_code[name] = ancestral(prior, 24), bits(prior, new_codes).item()
    sheets = {n: model.decode(new.unflatten(1, (SIDE, SIDE))) for n, new in drawn.items()}
    common.save_sheets(folder / "pixelcnn_samples.png", sheets, 12, (8, 2.6), across=2)

    rows = {"held out": held_out}
    measured: common.Measured = {"images": data.name, "first error": errors[0]}
    for name in ("squared error", "adversarial"):
        decoder = copy.deepcopy(model.decoder)
        pairs = ((latents[i], known[i]) for i in common.batches(torch.arange(len(known)), steps))
        common.minimize(decoder, losses(decoder, pairs, adversarial=name == "adversarial"), steps)
        with torch.no_grad():
            rows[name] = decoder(new_latents)
        measured[f"error, {name}"] = F.mse_loss(rows[name], held_out).item()
        measured[f"contrast, {name}"] = contrast(rows[name].clamp(0, 1))
    measured["contrast, held out"] = contrast(held_out)
    sheets = {name: images[:16] for name, images in rows.items()}
    common.save_sheets(folder / "pixelcnn_sharpness.png", sheets, 16, (8, 2.4))
    with torch.no_grad():
        spread = (model.decoder(latents[:1000]) - known[:1000]).std(0).clamp(min=2e-3)
        left = pixel_bits(model.decoder(new_latents), held_out, spread)
    for name, value in per_code.items():
        measured[f"bits per code, {name}"] = value
        measured[f"bits per dimension, {name}"] = value * SIDE**2 / 28**2 + left
    return measured


if __name__ == "__main__":
    common.start(run)
