"""Train a codec's recipe for as many steps as fit in the time: for a machine lent by the minute.

    python scripts/train_minutes.py 18 speech_1k_gpu.yaml data.root=data/corpus

The learning rate reaches its end with the last step, so their number has to be known beforehand. A
few are trained and thrown away to see how long one takes; the discriminators keep their share.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from vqcodec.errors import ConfigError, VqcodecError
from vqcodec.training.loop import Report
from vqcodec.training.recipe import Recipe
from vqcodec.training.recipe_files import load_recipe
from vqcodec.training.trainer import train

# Of a probe, the first third is lost to compilation and to caches that are still empty, the last to
# a validation at its end.
PROBE_STEPS = 150
# Of the time left, the rest being for validations and checkpoints.
SPENT_ON_STEPS = 0.93


def changed(recipe: Recipe, **settings: Any) -> Recipe:
    """The recipe with other settings of its own; what it leaves open stays open."""
    return Recipe.model_validate({**recipe.model_dump(exclude_unset=True), **settings})


def adversarial_with(recipe: Recipe, **settings: float) -> dict[str, float]:
    """Its adversarial section with other settings."""
    return recipe.adversarial.model_dump() | settings


def seconds_per_step(recipe: Recipe, device: str) -> float:
    """Measured on a run that is thrown away.

    Raises:
        VqcodecError: as `train` does.
    """
    third = PROBE_STEPS // 3
    reached: dict[int, float] = {}

    def note(report: Report) -> None:
        reached[report.step] = time.monotonic()

    with tempfile.TemporaryDirectory() as folder:
        probe = changed(
            recipe,
            output=folder,
            steps=PROBE_STEPS,
            unquantized_steps=1,
            log_every=third,
            validate_every=PROBE_STEPS,
            checkpoint_every=PROBE_STEPS,
            max_minutes=None,
        )
        train(probe, device=device, on_report=note)
    return (reached[2 * third] - reached[third]) / third


def fitted(recipe: Recipe, seconds: float, plain: float, adversarial: float) -> Recipe:
    """The recipe with the steps that fit.

    Args:
        recipe: whose adversarial phase keeps its share of the steps.
        seconds: for all of them.
        plain: seconds a step takes without discriminators.
        adversarial: with them.

    Raises:
        ConfigError: not even the codebook would be started.
    """
    adversary = recipe.adversarial
    share = 1 - adversary.start_step / recipe.steps if adversary.weight > 0 else 0.0
    steps = int(seconds / ((1 - share) * plain + share * adversarial))
    if steps <= recipe.unquantized_steps:
        raise ConfigError(f"only {max(steps, 0)} steps fit in the time: give it more minutes")
    start_step = int((1 - share) * steps)
    return changed(recipe, steps=steps, adversarial=adversarial_with(recipe, start_step=start_step))


def main(
    minutes: Annotated[float, typer.Argument(help="For everything, the probes too.")],
    recipe: Annotated[Path, typer.Argument(help="A recipe file, or the name of a packaged one.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train, and say what model was made."""
    end = time.monotonic() + 60 * minutes
    try:
        plan = load_recipe(recipe, overrides)
        never = changed(plan, adversarial=adversarial_with(plan, weight=0.0))
        always = changed(plan, adversarial=adversarial_with(plan, start_step=0))
        plain = seconds_per_step(never, device)
        adversarial = seconds_per_step(always, device) if plan.adversarial.weight > 0 else plain
        left = end - time.monotonic()
        plan = fitted(plan, SPENT_ON_STEPS * left, plain, adversarial)
        typer.echo(f"{plain:.4f} to {adversarial:.4f} s a step: {plan.steps} steps", err=True)
        model = train(changed(plan, max_minutes=left / 60), device=device, on_report=said)
    except VqcodecError as error:
        raise SystemExit(f"train_minutes.py: {error}") from None
    typer.echo(f"model: {model}")


def said(report: Report) -> None:
    """A line for each validation."""
    if report.validation is not None:
        line = f"step {report.step}/{report.steps}  validation {report.validation:.3f}"
        typer.echo(line, err=True)


if __name__ == "__main__":
    typer.run(main)
