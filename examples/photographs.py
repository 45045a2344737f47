"""Photographs of 128 x 128 pixels as 32 x 32 codes of K = 512: the paper's section 4.2, small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import skimage.data
import torch
import torch.nn.functional as F
from common import psnr
from skimage.color import gray2rgb
from sklearn.datasets import load_sample_images
from torch import Tensor

from vqcodec.models.codebook_usage import CollapseMonitor
from vqcodec.models.config import QuantizerConfig
from vqcodec.models.quantizer import VectorQuantizer

CODEBOOK_SIZE, SIDE, CROP, BLOCK = 512, 128, 64, 4  # pixels; a code stands for a block
# Of a photograph of a group, the patch that the figure shows.
SHOWN = {("known", 0): 5, ("known", 1): 1, ("cat", 0): 1, ("motorcycle", 0): 7}


def photographs() -> tuple[list[Tensor], list[Tensor]]:
    """Those to learn from, (3, H, W) each in [0, 1], five in colour first, and two kept aside."""
    known = [skimage.data.coffee(), skimage.data.astronaut(), skimage.data.rocket()]
    known += load_sample_images().images
    known += [skimage.data.immunohistochemistry(), skimage.data.hubble_deep_field()]
    known += [skimage.data.retina()]
    grey = [skimage.data.camera(), skimage.data.coins(), skimage.data.moon()]
    grey += [skimage.data.brick(), skimage.data.grass(), skimage.data.gravel()]
    known += map(gray2rgb, grey)
    unseen = [skimage.data.chelsea(), skimage.data.stereo_motorcycle()[0]]
    return tensors(known), tensors(unseen)


def tensors(images: list[Any]) -> list[Tensor]:
    """Images of bytes (H, W, 3) as (3, H, W) in [0, 1]."""
    return [torch.from_numpy(image.copy()).permute(2, 0, 1) / 255 for image in images]


def patches(photograph: Tensor) -> Tensor:
    """All of a photograph (3, H, W) that fills squares: (N, 3, SIDE, SIDE)."""
    squares = photograph.unfold(1, SIDE, SIDE).unfold(2, SIDE, SIDE)
    return squares.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def crops(known: list[Tensor], steps: int, batch_size: int) -> Iterator[Tensor]:
    """Smaller squares from anywhere, mirrored or not: the network knows no size."""
    for _ in range(steps):
        batch = []
        for index in torch.randint(len(known), (batch_size,)).tolist():
            top, left = (int(torch.randint(n - CROP, ())) for n in known[index].shape[1:])
            crop = known[index][:, top : top + CROP, left : left + CROP]
            batch.append(crop.flip(2) if torch.rand(()) < 0.5 else crop)
        yield torch.stack(batch)


def block_quantizer(known: list[Tensor]) -> VectorQuantizer:
    """What came before networks: 512 blocks of pixels, found by k-means."""
    dim = 3 * BLOCK**2
    config = QuantizerConfig(
        dim=dim, codebook_dim=dim, codebook_size=CODEBOOK_SIZE, use_cosine_sim=False
    )
    quantizer = VectorQuantizer(config)
    blocks = [F.unfold(one[None], BLOCK, stride=BLOCK)[0].T for one in known]
    quantizer.initialize(torch.cat([own[torch.randperm(len(own))[:2000]] for own in blocks]))
    return quantizer


def in_blocks(quantizer: VectorQuantizer, images: Tensor) -> Tensor:
    """Images with each block of pixels replaced by the nearest."""
    nearest = quantizer.nearest(F.unfold(images, BLOCK, stride=BLOCK).transpose(1, 2))
    return F.fold(quantizer.codebook[nearest].mT, images.shape[2:], BLOCK, stride=BLOCK)


def run(folder: Path, *, quick: bool = False) -> common.Measured:
    """Train on photographs, and look at them and at two that the network never saw."""
    torch.manual_seed(0)
    steps, batch_size = (40, 4) if quick else (27_000, 8)
    known, unseen = photographs()
    known = known[:2] if quick else known
    quantizer = common.ImageQuantizer(QuantizerConfig(codebook_size=CODEBOOK_SIZE), steps // 8)
    model = common.conv_vqvae(3, 48, quantizer)
    errors = common.fit(model, crops(known, steps, batch_size), steps)
    measured: common.Measured = {
        "first error": errors[0],
        "last error": errors[-1],
        "bits per pixel, of 24": (CODEBOOK_SIZE - 1).bit_length() / BLOCK**2,
    }
    shown: dict[str, list[Tensor]] = {"original": [], "VQ-VAE": [], "blocks": []}
    plain, monitor = block_quantizer(known), CollapseMonitor(CODEBOOK_SIZE, 1)
    for name, group in (("known", known), ("cat", unseen[:1]), ("motorcycle", unseen[1:])):
        decibels: dict[str, list[float]] = {"VQ-VAE": [], "blocks": []}
        for number, originals in enumerate(map(patches, group)):
            with torch.no_grad():
                passed = model(originals)
            monitor.update(passed.codes.flatten(1)[:, None])
            blocks = in_blocks(plain, originals)
            decibels["VQ-VAE"].append(psnr(passed.images, originals))
            decibels["blocks"].append(psnr(blocks, originals))
            pick = SHOWN.get((name, number))
            if pick is not None:
                for title, own in zip(shown, (originals, passed.images, blocks), strict=True):
                    shown[title].append(own[pick])
        for title, values in decibels.items():
            measured[f"PSNR in dB, {name}, {title}"] = sum(values) / len(values)
    measured[f"perplexity of {CODEBOOK_SIZE}"] = monitor.usage().perplexity
    sheets = {title: torch.stack(parts) for title, parts in shown.items()}
    common.save_sheets(folder / "photographs.png", sheets, 1, (4.2, 5.7), across=3)
    return measured


if __name__ == "__main__":
    common.start(run)
