"""Action-conditioned video, the paper's section 4.4: a ball, a paddle, and who moves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import common
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from vqcodec.models.config import QuantizerConfig

SIDE, CODEBOOK_SIZE = 16, 64
N_CODES = (SIDE // 4) ** 2  # of a frame
LEFT, STAY, RIGHT = range(3)
SPEED, PADDLE_ROW = 2, 14  # pixels
BALL_ROWS, PADDLE_ROWS = slice(0, 13), slice(13, 16)
BOUNDS = ((2, 10), (2, 14))  # of the ball's row and column


def play(actions: np.ndarray, seed: int) -> Tensor:
    """Frames (T + 1, 1, SIDE, SIDE): the ball bounces, the paddle goes where T actions say."""
    rng = np.random.default_rng(seed)
    ball, paddle = 2 * rng.integers(1, 6, 2), 2 * rng.integers(1, 7)
    speed = rng.choice([-SPEED, SPEED], 2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    frames = []
    for action in [STAY, *actions]:
        paddle = np.clip(paddle + SPEED * (action - STAY), 2, SIDE - 2)
        for axis, (low, high) in enumerate(BOUNDS):
            if not low <= ball[axis] + speed[axis] <= high:
                speed[axis] = -speed[axis]
        ball = ball + speed
        disc = np.clip(2 - np.hypot(rows - ball[0], columns - ball[1]), 0, 1)
        bar = (abs(columns - paddle) <= 2) & (rows == PADDLE_ROW)
        frames.append(np.maximum(disc, bar))
    return torch.tensor(np.array(frames), dtype=torch.float32)[:, None]


def games(count: int, length: int) -> tuple[Tensor, Tensor]:
    """Frames (count, length + 1, 1, SIDE, SIDE) and random actions (count, length)."""
    actions = np.random.default_rng(0).integers(0, 3, (count, length))
    return torch.stack([play(own, seed) for seed, own in enumerate(actions)]), torch.tensor(actions)


def next_frame(prior: common.GridPrior, codes: Tensor, actions: Tensor) -> Tensor:
    """The likeliest codes (B, N) after those of two frames (B, 2 N)."""
    for _ in range(N_CODES):
        # What stands in the last place is not looked at: it is what is asked for.
        logits = prior(F.pad(codes, (0, 1)), actions)[:, -1]
        codes = torch.cat([codes, logits.argmax(-1, keepdim=True)], 1)
    return codes[:, -N_CODES:]


def centre(frames: Tensor, rows: slice) -> Tensor:
    """Row and column (B, 2) of what is light in some rows of frames (B, 1, SIDE, SIDE)."""
    light = frames[:, 0, rows].clamp(min=0)
    places = torch.cartesian_prod(torch.arange(light.shape[1]), torch.arange(SIDE)).float()
    return light.flatten(1) @ places / light.sum((1, 2)).clamp(min=1e-3)[:, None]


def run(folder: Path, *, quick: bool = False) -> common.Measured:
    """Learn frames, then what follows them, then play on from two frames in codes alone."""
    torch.manual_seed(0)
    steps, count = (30, 20) if quick else (800, 500)
    frames, actions = games(count, 12)
    quantizer = common.ImageQuantizer(QuantizerConfig(codebook_size=CODEBOOK_SIZE), steps // 8)
    model = common.conv_vqvae(1, 32, quantizer)
    errors = common.fit(model, common.batches(frames.flatten(0, 1), steps), steps)
    with torch.no_grad():
        codes = model(frames.flatten(0, 1)).codes.view(count, -1, N_CODES)
    prior, losses = common.GridPrior(CODEBOOK_SIZE, 3 * N_CODES), []

    def prior_losses() -> Iterator[Tensor]:
        for _ in range(steps):
            game, time = torch.randint(count, (64,)), torch.randint(1, actions.shape[1], (64,))
            three = torch.cat([codes[game, time + step] for step in (-1, 0, 1)], 1)
            logits = prior(three, actions[game, time])[:, -N_CODES:]
            losses.append(F.cross_entropy(logits.flatten(0, 1), three[:, -N_CODES:].flatten()))
            yield losses[-1]

    common.minimize(prior, prior_losses(), steps)
    length = 10
    plans = torch.tensor([[LEFT] * length, [RIGHT] * length, [RIGHT] * 5 + [LEFT] * 5])
    true = torch.stack([play(np.array([STAY, *plan]), seed=10_001) for plan in plans])
    with torch.no_grad():
        begun = model(true[:, :2].flatten(0, 1)).codes.view(len(plans), 2, N_CODES)
        told = [begun[:, 0], begun[:, 1]]
        for step in range(length):
            told.append(next_frame(prior, torch.cat(told[-2:], 1), plans[:, step]))
        grids = torch.stack(told, 1).unflatten(2, (SIDE // 4, SIDE // 4))
        dreamt = model.decode(grids.flatten(0, 1)).unflatten(0, grids.shape[:2])
    sheets: dict[str, Tensor] = {}
    measured: common.Measured = {
        "first and last error of frames": f"{errors[0]:.4f} {errors[-1]:.4f}",
        "first and last nats per code": f"{losses[0].item():.3f} {losses[-1].item():.3f}",
    }
    for name, own, other in zip(("left", "right", "right, then left"), dreamt, true, strict=True):
        sheets |= {f"{name}: true": other, f"{name}: from codes of the first two": own}
        for what, rows in (("ball", BALL_ROWS), ("paddle", PADDLE_ROWS)):
            away = (centre(own, rows) - centre(other, rows)).norm(dim=1)[2:]
            measured[f"{what}, pixels off, {name}"] = away.mean().item()
    common.save_sheets(folder / "action_video.png", sheets, length + 2, (7, 4.8))
    return measured


if __name__ == "__main__":
    common.start(run)
