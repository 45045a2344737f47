#!/usr/bin/env bash
# torch.optim.lr_scheduler.OneCycleLR takes pct_start in [0, 1] and any positive total_steps; where their product
# is exactly 1, its warm-up is zero steps long and torch 2.14.1 divides by that length. Output seen:
#   10 steps, pct_start 0.1: ZeroDivisionError: float division by zero
#   20 steps, pct_start 0.05: ZeroDivisionError: float division by zero
#   10 steps, pct_start 0.2: accepted
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
"$folder/venv/bin/python" - <<'PYTHON'
import torch

found = []
for total_steps, pct_start in ((10, 0.1), (20, 0.05), (10, 0.2)):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    try:
        torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=total_steps, pct_start=pct_start)
        found.append("accepted")
    except ZeroDivisionError as error:
        found.append(f"ZeroDivisionError: {error}")
    print(f"{total_steps} steps, pct_start {pct_start}: {found[-1]}")
assert found == ["ZeroDivisionError: float division by zero"] * 2 + ["accepted"]
PYTHON
