"""What the examples share: images, the paper's network for them, its training, and figures."""

from __future__ import annotations

import argparse
import gzip
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from vqcodec.evaluation.plots import new_figure, png
from vqcodec.models.code_transformer import SPEAKER_DIM, CodeTransformer
from vqcodec.models.config import PriorConfig, QuantizerConfig
from vqcodec.models.quantizer import LatentNorm, VectorQuantizer, build_quantizer

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # of Debian's dataset-fashion-mnist
FIGURES = Path(__file__).parents[1] / "docs" / "examples"
# Of the quantizer's loss: squared errors of pixels are small beside distances of unit vectors.
QUANTIZER_WEIGHT = 0.1
Measured = dict[str, float | str]


class Images(NamedTuple):
    """Grey images (N, 1, 28, 28) in [0, 1]."""

    name: str
    train: Tensor
    test: Tensor


def load_images() -> Images:
    """Fashion-MNIST, or where that is not installed scikit-learn's digits, enlarged."""
    if not FASHION_MNIST.is_dir():
        from sklearn.datasets import load_digits

        small = torch.from_numpy(load_digits().images).float()[:, None] / 16
        digits = nn.functional.interpolate(small, size=(28, 28), mode="bilinear")
        return Images("digits", digits[:-300], digits[-300:])
    parts = []
    for part in ("train", "t10k"):
        content = gzip.decompress((FASHION_MNIST / f"{part}-images-idx3-ubyte.gz").read_bytes())
        pixels = torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=16)
        parts.append(pixels.view(-1, 1, 28, 28) / 255)
    return Images("Fashion-MNIST", *parts)


def batches(items: Tensor, steps: int, batch_size: int = 32) -> Iterator[Tensor]:
    """Items (N, ...), drawn at random."""
    for _ in range(steps):
        yield items[torch.randint(len(items), (batch_size,))]


class Residual(nn.Module):
    """ReLU, 3 x 3 convolution, ReLU, 1 x 1 convolution, beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        spatial, pointwise = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)
        self.branch = nn.Sequential(nn.ReLU(), spatial, nn.ReLU(), pointwise)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        out: Tensor = x + self.branch(x)
        return out


def image_encoder(channels: int, width: int, dim: int) -> nn.Sequential:
    """The paper's (section 4.1): each side becomes a quarter as long."""
    halved = nn.Conv2d(channels, width // 2, 4, 2, padding=1)
    quartered = nn.Conv2d(width // 2, width, 4, 2, padding=1)
    residual = Residual(width), Residual(width)
    return nn.Sequential(
        halved, nn.ReLU(), quartered, *residual, nn.ReLU(), nn.Conv2d(width, dim, 1)
    )


def image_decoder(dim: int, width: int, channels: int) -> nn.Sequential:
    """The encoder's mirror image."""
    residual = Residual(width), Residual(width)
    doubled = nn.ConvTranspose2d(width, width // 2, 4, 2, padding=1)
    whole = nn.ConvTranspose2d(width // 2, channels, 4, 2, padding=1)
    first = nn.Conv2d(dim, width, 3, padding=1)
    return nn.Sequential(first, *residual, nn.ReLU(), doubled, nn.ReLU(), whole)


class ImageQuantizer(nn.Module):
    """vqcodec's quantizer, which knows sequences, for grids of latents (B, D, h, w).

    Ours is given a k-means start after some unquantised steps, as vqcodec's trainer does;
    vector-quantize-pytorch's start by themselves.
    """

    def __init__(self, config: QuantizerConfig, unquantized_steps: int = 0) -> None:
        super().__init__()
        self.norm, self.quantizer = LatentNorm(config.dim), build_quantizer(config)
        self.steps_left = unquantized_steps

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """To quantised ones, codes (B, h, w) and the loss."""
        sequence = self.norm(latents.flatten(2))
        if self.training and isinstance(self.quantizer, VectorQuantizer):
            if self.steps_left == 0:
                self.quantizer.initialize(self.quantizer.project(sequence).detach().flatten(0, 1))
            self.steps_left -= 1
        quantized, codes, loss = self.quantizer(sequence)
        return quantized.view_as(latents), codes.view(-1, *latents.shape[2:]), loss

    def decode(self, codes: Tensor) -> Tensor:
        """(B, h, w) -> latents (B, D, h, w)."""
        return self.quantizer.decode(codes.flatten(1)[:, None]).unflatten(2, codes.shape[1:])


class Passed(NamedTuple):
    """What becomes of images: decoded ones, codes (B, h, w), and the quantizer's loss."""

    images: Tensor
    codes: Tensor
    loss: Tensor


class ImageVQVAE(nn.Module):
    """Encoder, quantizer, decoder."""

    def __init__(self, encoder: nn.Module, quantizer: ImageQuantizer, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.quantizer, self.decoder = encoder, quantizer, decoder

    def forward(self, images: Tensor) -> Passed:
        """(B, C, H, W) there and back."""
        quantized, codes, loss = self.quantizer(self.encoder(images))
        return Passed(self.decoder(quantized), codes, loss)

    def decode(self, codes: Tensor) -> Tensor:
        """(B, h, w) -> images."""
        images: Tensor = self.decoder(self.quantizer.decode(codes))
        return images


def conv_vqvae(channels: int, width: int, quantizer: ImageQuantizer, dim: int = 64) -> ImageVQVAE:
    """The paper's (section 4.1): a code for every 4 x 4 pixels."""
    encoder, decoder = image_encoder(channels, width, dim), image_decoder(dim, width, channels)
    return ImageVQVAE(encoder, quantizer, decoder)


class GridPrior(nn.Module):
    """vqcodec's prior, for which codes of images stand in reading order.

    Where it would be told who speaks, it is told one of a few conditions, or nothing.
    """

    def __init__(self, codebook_size: int, n_codes: int) -> None:
        super().__init__()
        config = PriorConfig(channels=64, n_layers=3, n_heads=4, context=n_codes, dropout=0.0)
        self.transformer = CodeTransformer(config, codebook_size)

    def forward(self, codes: Tensor, condition: Tensor | None = None) -> Tensor:
        """Codes (B, N), conditions (B,) -> logits (B, N, K) of each code after those before it."""
        previous = nn.functional.pad(codes[:, :-1], (1, 0), value=self.transformer.begin)
        told = torch.zeros(len(codes), SPEAKER_DIM)
        if condition is not None:
            told = nn.functional.one_hot(condition, SPEAKER_DIM).float()
        logits: Tensor = self.transformer(previous, told)
        return logits


def minimize(module: nn.Module, losses: Iterable[Tensor], steps: int, rate: float = 1e-3) -> None:
    """Train by Adam, at a rate that falls to nothing; then no more."""
    optimizer = torch.optim.Adam(module.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for loss in losses:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    module.eval()


def fit(model: nn.Module, images: Iterable[Tensor], steps: int) -> list[float]:
    """Train a model that makes `Passed` of images; returns their squared errors."""
    errors = []

    def losses() -> Iterator[Tensor]:
        for batch in images:
            passed = model(batch)
            error = (passed.images - batch).square().mean()
            errors.append(error.item())
            yield error + QUANTIZER_WEIGHT * passed.loss

    minimize(model, losses(), steps)
    return errors


def psnr(images: Tensor, originals: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, of values in [0, 1]."""
    return -10 * math.log10((images.clamp(0, 1) - originals).square().mean().item())


def save(figure: Any, path: Path) -> None:
    """A figure as a PNG file of few colours, a third as large."""
    with Image.open(io.BytesIO(png(figure, dpi=90))) as image:
        image.convert("RGB").quantize(64).save(path, optimize=True)


def save_sheets(
    path: Path,
    sheets: Mapping[str, Tensor],
    columns: int,
    size: tuple[float, float],
    across: int = 1,
) -> None:
    """A figure of so many inches, in it a sheet of images (N, C, H, W) for each title."""
    figure = new_figure(*size)
    axes: Any = figure.subplots(len(sheets) // across, across, squeeze=False)
    for axis, (title, images) in zip(axes.flat, sheets.items(), strict=True):
        framed = nn.functional.pad(images.detach().clamp(0, 1), (1, 1, 1, 1), value=1.0)
        rows = [torch.cat(list(row), dim=2) for row in framed.split(columns)]
        sheet = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
        axis.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    save(figure, path)


def start(run: Callable[..., Measured]) -> None:
    """The command line of an example: draw its figures, and print what it measured."""
    parser = argparse.ArgumentParser(description=run.__doc__)
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder that they go to")
    parser.add_argument("--quick", action="store_true", help="far too short, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # so that the figures are the same on any number of cores
    arguments.figures.mkdir(parents=True, exist_ok=True)
    for name, value in run(arguments.figures, quick=arguments.quick).items():
        print(f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}")
