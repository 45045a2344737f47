#!/usr/bin/env bash
# pystoi 0.4.1 measures extended STOI with noise from NumPy's global generator, against division by zero. Where a
# decoding holds digital silence that noise decides: the same two arrays have other values at each call, and the
# caller's generator has moved on. STOI itself, and ESTOI without digital silence, are repeatable. Output seen:
#   ESTOI, some of it silent: 3 values of 3 calls; the generator moved
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pystoi==0.4.1 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from pystoi import stoi

rate, rng = 16_000, np.random.default_rng(0)
time = np.arange(3 * rate) / rate
original = rng.standard_normal(len(time)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))
decoded = original + 0.3 * rng.standard_normal(len(time))
decoded[rate : rate + rate // 2] = 0  # what a codec or a gate makes of a pause

np.random.seed(0)
before = np.random.get_state()[2]
values = {float(stoi(original, decoded, rate, extended=True)) for _ in range(3)}
moved = np.random.get_state()[2] != before
print(f"ESTOI, some of it silent: {len(values)} values of 3 calls; the generator {'moved' if moved else 'stayed'}")
print("values:", *sorted(values))
plain = {float(stoi(original, decoded, rate)) for _ in range(3)}
print(f"STOI: {len(plain)} value of 3 calls")
assert len(values) == 3 and moved and len(plain) == 1
PYTHON
