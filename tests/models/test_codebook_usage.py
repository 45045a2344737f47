"""What is told of a codebook, and when it is warned of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_data import (
    run,
    small_recipe,
)

from vqcodec.data.prepared import PreparedData
from vqcodec.models.codebook_usage import CollapseMonitor
from vqcodec.models.quantizer import VectorQuantizer
from vqcodec.training import trainer


def test_usage_of_known_codes() -> None:
    monitor = CollapseMonitor(8, n_codebooks=2)
    monitor.update(torch.tensor([[[0, 1, 2, 3], [5, 5, 5, 5]], [[0, 1, 2, 3], [5, 5, 5, 5]]]))
    usage = monitor.usage()
    assert usage.perplexity == pytest.approx((4 + 1) / 2)
    assert usage.used == pytest.approx(5 / 16)
    assert (usage.dead, usage.n_codes) == (11, 8)
    assert monitor.usage().n_codes == 0


def test_monitor_warns_of_a_collapse_only() -> None:
    monitor = CollapseMonitor(512, n_codebooks=1)
    healthy = torch.arange(2048).remainder(512).view(4, 1, 512)
    monitor.update(healthy)
    assert monitor.warning(monitor.usage()) is None
    monitor.update(healthy.remainder(3))
    warning = monitor.warning(monitor.usage())
    assert warning is not None
    assert "perplexity 3.0 of 512, 509 codes unused" in warning
    assert "use model.quantizer.codebook_dim" in warning
    assert "\n" not in warning
    monitor.update(healthy[:1, :, :100].remainder(3))  # too few codes to tell
    assert monitor.warning(monitor.usage()) is None


@pytest.mark.parametrize("collapsed", [True, False])
def test_a_training_that_collapses_says_so(
    data: PreparedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collapsed: bool
) -> None:
    monkeypatch.setattr(trainer, "SETTLING_STEPS", 2)
    if collapsed:
        nearest = VectorQuantizer.nearest
        monkeypatch.setattr(
            VectorQuantizer, "nearest", lambda self, x: torch.zeros_like(nearest(self, x))
        )
    _, reports = run(small_recipe(data, tmp_path, steps=5))
    warned = ["collapsing" in (report.warning or "") for report in reports]
    assert warned == [False, False, *3 * [collapsed]]
