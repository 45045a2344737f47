"""What a maintainer runs: every tool and benchmark starts and says how it is called."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import ROOT, Run

SCRIPTS = sorted(
    path.relative_to(ROOT)
    for folder in ("tools", "benchmarks")
    for path in (ROOT / folder).glob("*.py")
    if "def main(" in path.read_text("utf-8") or "typer.Typer(" in path.read_text("utf-8")
)


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_it_says_how_it_is_called(script: Path, run_script: Run) -> None:
    done = run_script(str(script), "--help")
    assert done.status == 0, done.stderr
    assert "Usage:" in done.stdout
