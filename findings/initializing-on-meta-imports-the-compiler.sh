#!/usr/bin/env bash
# A module is built on torch's meta device to learn its shapes at no cost. With torch 2.14.1 torch.empty and a
# Linear layer there cost nothing, but Tensor.normal_, which initialises embeddings, imports torch._dynamo and the
# rest of the compiler: hundreds of modules that the same call on a CPU does not import. Output seen:
#   cpu: 0 modules imported, torch._dynamo is not one
#   meta: 893 modules imported, torch._dynamo is one
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.14.1
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import torch


def imported(device: str) -> set[str]:
    before = set(sys.modules)
    torch.nn.Embedding(8, 4, device=device)
    return set(sys.modules) - before


for device in ("cpu", "meta"):
    torch.nn.Linear(4, 4, device=device)
    new = imported(device)
    print(f"{device}: {len(new)} modules imported, torch._dynamo {'is' if 'torch._dynamo' in new else 'is not'} one")
    assert ("torch._dynamo" in new) == (device == "meta")
PYTHON
