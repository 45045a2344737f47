"""Photographs of 128 x 128 pixels as 32 x 32 codes of K = 512: the paper's section 4.2, small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import common
import skimage.data
import torch
import torch.nn.functional as F
from common import psnr
from sklearn.datasets import load_sample_images
from torch import Tensor

from vqcodec.models.codebook_usage import CollapseMonitor
from vqcodec.models.config import QuantizerConfig
from vqcodec.models.quantizer import VectorQuantizer

CODEBOOK_SIZE, SIDE, CROP, BLOCK = 512, 128, 64, 4  # pixels; a code stands for a block


def photographs() -> tuple[list[Tensor], Tensor]:
    """Five to learn from, (3, H, W) each in [0, 1], and one that is kept aside."""
    shown = [skimage.data.coffee(), skimage.data.astronaut(), skimage.data.rocket()]
    shown += [*load_sample_images().images, skimage.data.chelsea()]
    *known, unseen = [torch.from_numpy(image.copy()).permute(2, 0, 1) / 255 for image in shown]
    return known, unseen


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
    blocks = torch.cat([F.unfold(one[None], BLOCK, stride=BLOCK)[0].T for one in known])
    quantizer.initialize(blocks[torch.randperm(len(blocks))[:10_000]])
    return quantizer


def in_blocks(quantizer: VectorQuantizer, images: Tensor) -> Tensor:
    """Images with each block of pixels replaced by the nearest."""
    nearest = quantizer.nearest(F.unfold(images, BLOCK, stride=BLOCK).transpose(1, 2))
    return F.fold(quantizer.codebook[nearest].mT, images.shape[2:], BLOCK, stride=BLOCK)


def run(folder: Path, *, quick: bool = False) -> common.Measured:
    """Train on five photographs, and look at them and at one that the network never saw."""
    torch.manual_seed(0)
    steps, batch_size = (40, 4) if quick else (2500, 8)
    known, unseen = photographs()
    quantizer = common.ImageQuantizer(QuantizerConfig(codebook_size=CODEBOOK_SIZE), steps // 8)
    model = common.conv_vqvae(3, 48, quantizer)
    errors = common.fit(model, crops(known, steps, batch_size), steps)
    images = {"known": torch.cat([patches(one) for one in known]), "unseen": patches(unseen)}
    measured: common.Measured = {
        "first error": errors[0],
        "last error": errors[-1],
        "bits per pixel, of 24": (CODEBOOK_SIZE - 1).bit_length() / BLOCK**2,
    }
    shown: dict[str, list[Tensor]] = {"original": [], "VQ-VAE": [], "blocks": []}
    plain, monitor = block_quantizer(known), CollapseMonitor(CODEBOOK_SIZE, 1)
    with torch.no_grad():
        for name, originals in images.items():
            passed = model(originals)
            monitor.update(passed.codes.flatten(1)[:, None])
            blocks = in_blocks(plain, originals)
            measured[f"PSNR in dB, {name}, VQ-VAE"] = psnr(passed.images, originals)
            measured[f"PSNR in dB, {name}, blocks"] = psnr(blocks, originals)
            picks = [5, 13] if name == "known" else [1]  # a cup, a face; a cat's eye
            for title, own in zip(shown, (originals, passed.images, blocks), strict=True):
                shown[title].append(own[picks])
    measured[f"perplexity of {CODEBOOK_SIZE}"] = monitor.usage().perplexity
    sheets = {title: torch.cat(parts) for title, parts in shown.items()}
    common.save_sheets(folder / "photographs.png", sheets, 1, (4.2, 4.4), across=3)
    return measured


if __name__ == "__main__":
    common.start(run)
