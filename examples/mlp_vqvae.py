"""An MLP VQ-VAE on images: with vqcodec's quantizer, and with vector-quantize-pytorch's."""

from __future__ import annotations

import statistics
from pathlib import Path

import common
import torch
from sklearn.manifold import TSNE
from torch import nn

from vqcodec.evaluation.plots import new_figure
from vqcodec.models.codebook_usage import CollapseMonitor
from vqcodec.models.config import QuantizerConfig

DIM, CODEBOOK_DIM, CODEBOOK_SIZE, SIDE = 16, 8, 128, 4  # sixteen codes an image
SHARED = QuantizerConfig(dim=DIM, codebook_dim=CODEBOOK_DIM, codebook_size=CODEBOOK_SIZE)
QUANTIZERS = {
    # Their commitment loss is a mean over the dimensions, ours a sum.
    "vqcodec": SHARED.model_copy(update={"commitment_weight": 0.25 / CODEBOOK_DIM}),
    # vqcodec's way to vector-quantize-pytorch; a residual quantizer of one stage is a plain one.
    "vector-quantize-pytorch": SHARED.model_copy(update={"kind": "residual_vq"}),
}


def mlp_vqvae(config: QuantizerConfig) -> common.ImageVQVAE:
    """Two layers to the latents, two layers back."""
    encoder = nn.Sequential(
        nn.Flatten(),
        nn.Linear(28 * 28, 256),
        nn.ReLU(),
        nn.Linear(256, DIM * SIDE * SIDE),
        nn.Unflatten(1, (DIM, SIDE, SIDE)),
    )
    decoder = nn.Sequential(
        nn.Flatten(),
        nn.Linear(DIM * SIDE * SIDE, 256),
        nn.ReLU(),
        nn.Linear(256, 28 * 28),
        nn.Unflatten(1, (1, 28, 28)),
    )
    return common.ImageVQVAE(encoder, common.ImageQuantizer(config), decoder)


def draw(models: dict[str, common.ImageVQVAE], images: common.Images, folder: Path) -> None:
    """Reconstructions, images of random codes, and the codebooks."""
    originals = images.test[:16]
    decoded = {f"sixteen codes each, {name}": m(originals).images for name, m in models.items()}
    rows = {f"{images.name}, held out": originals, **decoded}
    common.save_sheets(folder / "mlp_reconstructions.png", rows, 16, (8, 2.4))
    random_codes = torch.randint(CODEBOOK_SIZE, (16, SIDE, SIDE))
    rows = {f"random codes, {name}": model.decode(random_codes) for name, model in models.items()}
    common.save_sheets(folder / "mlp_random_codes.png", rows, 16, (8, 1.6))
    figure = new_figure(8, 3.6)
    for axis, (name, model) in zip(figure.subplots(1, 2), models.items(), strict=True):
        counts = model(images.test).codes.flatten().bincount(minlength=CODEBOOK_SIZE)
        vectors = model.quantizer.decode(torch.arange(CODEBOOK_SIZE).view(-1, 1, 1)).flatten(1)
        plane = TSNE(perplexity=15, init="pca", random_state=0).fit_transform(vectors.numpy())
        points = axis.scatter(*plane.T, c=100 * counts / counts.sum(), s=24, cmap="viridis")
        axis.set_title(f"t-SNE of the codebook, {name}", fontsize=10)
        axis.set(xticks=[], yticks=[])
        figure.colorbar(points, ax=axis, label="% of the codes")
    common.save(figure, folder / "mlp_codebooks.png")


def run(folder: Path, *, quick: bool = False) -> common.Measured:
    """Train both, from the same weights and on the same batches, three times."""
    images = common.load_images()
    steps, seeds = (100, 1) if quick else (1000, 3)
    measured: common.Measured = {"images": images.name}
    models = {}
    for name, config in QUANTIZERS.items():
        errors, used = [], []
        for seed in range(seeds):
            torch.manual_seed(seed)
            model = models[name] = mlp_vqvae(config)
            torch.manual_seed(seed)
            losses = common.fit(model, common.batches(images.train, steps, 64), steps)
            with torch.no_grad():
                passed = model(images.test)
            errors.append((passed.images - images.test).square().mean().item())
            monitor = CollapseMonitor(CODEBOOK_SIZE, 1)
            monitor.update(passed.codes.view(1, 1, -1))
            used.append(monitor.usage().perplexity)
        measured[f"{name}, first training error"] = losses[0]
        measured[f"{name}, held-out error"] = statistics.mean(errors)
        measured[f"{name}, spread of it over seeds"] = max(errors) - min(errors)
        measured[f"{name}, perplexity of {CODEBOOK_SIZE}"] = statistics.mean(used)
    with torch.no_grad():
        draw(models, images, folder)
    return measured


if __name__ == "__main__":
    common.start(run)
