"""The quantizer by hand: six vectors and four codes in the plane, where all of it can be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import torch
from torch import Tensor, nn

from vqcodec.evaluation.plots import new_figure
from vqcodec.models.config import QuantizerConfig
from vqcodec.models.quantizer import VectorQuantizer

VECTORS = torch.tensor([[-1.1, 0.5], [-0.5, 1.1], [0.4, 1], [1.2, 0.3], [0.8, -0.9], [-0.3, -0.6]])
CODES = torch.tensor([[-0.9, 0.9], [1, 0.8], [0.6, -0.6], [-0.9, -0.8]])
DOWNSTREAM = torch.tensor([0.5, 0.2])  # the gradient that the decoder sends back, for each vector
ESTIMATORS = {"ste": "straight-through", "nsvq": "NSVQ, 20 draws", "rotation": "rotation trick"}
UPDATES = {"loss": "codebook loss", "ema": "moving averages"}
LEARNING_RATE, DECAY = 0.1, 0.9


def quantizer(codes: Tensor, **settings: Any) -> VectorQuantizer:
    """vqcodec's, with these codes, and no projection before or behind."""
    plane = {"dim": 2, "codebook_dim": 2, "use_cosine_sim": False, "decay": DECAY}
    config = QuantizerConfig.model_validate({**plane, "codebook_size": len(codes), **settings})
    layer = VectorQuantizer(config)
    for projection in (layer.project_in, layer.project_out):
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)
    with torch.no_grad():
        layer.codebook.copy_(codes)
    if config.codebook_update == "ema":
        layer.cluster_sum.copy_(codes)
    layer.initialized.fill_(True)
    return layer


def scatter(axis: Any, vectors: Tensor, codes: Tensor, title: str) -> None:
    """Vectors as points and codes as crosses."""
    size, alpha = (30, 1) if len(vectors) < 10 else (6, 0.4)
    axis.scatter(*vectors.T, s=size, alpha=alpha, color="tab:blue", zorder=3)
    axis.scatter(*codes.T, s=70, color="tab:red", edgecolor="white", marker="X", zorder=4)
    axis.set_title(title, fontsize=10)
    axis.set(aspect="equal", xticks=[], yticks=[])


def draw_nearest(path: Path) -> list[int]:
    """Every vector goes to the nearest code; returns the codes that the quantizer chose."""
    quantized, indices, _ = quantizer(CODES)(VECTORS.T[None])
    squared = (VECTORS[:, None] - CODES).square().sum(-1)
    figure = new_figure(8, 3.6)
    plane, table = figure.subplots(1, 2)
    scatter(plane, VECTORS, CODES, "six vectors (points), four codes (crosses)")
    for number, (vector, code) in enumerate(zip(VECTORS, quantized[0].detach().T, strict=True)):
        plane.annotate("", code, vector, arrowprops={"arrowstyle": "->", "color": "grey"})
        plane.annotate(f"x{number}", vector, (5, 5), textcoords="offset points")
    for number, code in enumerate(CODES):
        plane.annotate(f"e{number}", code, (7, -13), textcoords="offset points", color="tab:red")
    plane.margins(0.15)
    table.imshow(squared.numpy(), cmap="Blues_r")
    for row, column in torch.cartesian_prod(torch.arange(6), torch.arange(4)).tolist():
        own, chosen = squared[row, column].item(), indices[0, 0, row] == column
        style = {"weight": "bold" if chosen else "normal", "color": "white" if own < 2 else "black"}
        table.text(column, row, f"{own:.2f}", ha="center", va="center", **style)
    table.set_title("squared distances; the least is the code", fontsize=10)
    table.set_xticks(range(4), ["e0", "e1", "e2", "e3"])
    table.set_yticks(range(6), ["x0", "x1", "x2", "x3", "x4", "x5"])
    common.save(figure, path)
    chosen_codes: list[int] = indices[0, 0].tolist()
    return chosen_codes


def gradients(estimator: str, draws: int) -> Tensor:
    """(draws, 6, 2): what reaches the vectors when every quantised one is sent `DOWNSTREAM`."""
    layer = quantizer(CODES, estimator=estimator)
    latents = VECTORS.T.repeat(draws, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(
        layer(latents).quantized, latents, DOWNSTREAM[:, None].expand_as(latents)
    )
    return gradient.transpose(1, 2)


def codebook_path(layer: VectorQuantizer, cloud: Tensor, steps: int) -> Tensor:
    """(steps + 1, K, 2): where the codes are while they learn from vectors that stay."""
    path = [layer.codebook.detach().clone()]
    for _ in range(steps):
        loss = layer(cloud.T[None]).loss  # moving averages are updated in here
        if layer.config.codebook_update == "loss":
            (gradient,) = torch.autograd.grad(loss, layer.codebook)
            layer.codebook.data -= LEARNING_RATE * gradient
        path.append(layer.codebook.detach().clone())
    return torch.stack(path)


def run(folder: Path, *, quick: bool = False) -> common.Measured:
    """Distances, gradients, two ways to learn a codebook, and dead codes with their restart."""
    torch.manual_seed(0)
    chosen = draw_nearest(folder / "by_hand_nearest.png")
    measured: common.Measured = {"codes of x0 to x5": " ".join(map(str, chosen))}
    figure = new_figure(9, 2.8)
    for axis, (estimator, title) in zip(figure.subplots(1, 3), ESTIMATORS.items(), strict=True):
        drawn = gradients(estimator, 20)
        mean, style = drawn.mean(0), {"angles": "xy", "scale_units": "xy", "scale": 1}
        scatter(axis, VECTORS, CODES, title)
        for one in drawn:
            axis.quiver(*VECTORS.T, *one.T, width=0.004, alpha=0.2, **style)
        axis.quiver(*VECTORS.T, *mean.T, width=0.009, zorder=2, **style)
        axis.set(xlim=(-1.6, 2.1), ylim=(-1.2, 1.6))
        change = (mean - DOWNSTREAM).norm(dim=1).mean() / DOWNSTREAM.norm()
        measured[f"change of the gradient, {title}"] = change.item()
    common.save(figure, folder / "by_hand_gradients.png")

    steps = 20 if quick else 60
    cloud = torch.cat([torch.randn(100, 2) * 0.25 + centre for centre in 1.4 * CODES])
    figure = new_figure(9, 2.8)
    *planes, curve = figure.subplots(1, 3)
    for axis, (update, title) in zip(planes, UPDATES.items(), strict=True):
        path = codebook_path(quantizer(CODES * 0.3, codebook_update=update), cloud, steps)
        scatter(axis, cloud, path[-1], title)
        axis.plot(*path.permute(2, 0, 1), color="tab:red", linewidth=1.5, zorder=3)
        errors = [torch.cdist(cloud, codes).amin(1).square().mean().item() for codes in path]
        curve.plot(errors, label=title)
        measured[f"error after 1 and {steps} steps, {title}"] = f"{errors[1]:.3f} {errors[-1]:.3f}"
    curve.set_title("mean squared distance to the code", fontsize=10)
    curve.set(xlabel="step", ylim=0)
    curve.legend()
    common.save(figure, folder / "by_hand_updates.png")

    figure = new_figure(9, 4.6)
    crowd, moments = torch.randn(12, 2) * 0.1 + 2.2, [0, steps // 20, steps // 4, steps]
    for threshold, row in zip((0.0, 0.05), figure.subplots(2, 4), strict=True):
        path = codebook_path(quantizer(crowd, threshold_ema_dead_code=threshold), cloud, steps)
        title = "restart" if threshold else "no restart"
        for axis, step in zip(row, moments, strict=True):
            used = len(torch.cdist(cloud, path[step]).argmin(1).unique())
            scatter(axis, cloud, path[step], f"{title}, step {step}: {used} of 12")
            axis.set(xlim=(-2.2, 2.6), ylim=(-2.2, 2.6))
        measured[f"codes in use, {title}"] = used
    common.save(figure, folder / "by_hand_dead_codes.png")
    return measured


if __name__ == "__main__":
    common.start(run)
