#!/usr/bin/env bash
# numba 0.68.1 keeps a function compiled with cache=True on disk at NUMBA_OPT=3 and 1. At NUMBA_OPT=0, which is set to
# compile faster or to debug, it keeps only functions that call no other compiled function, and says of the others that
# they use "dynamic globals (such as ctypes pointers and large global arrays)", of which this one has none: it calls a
# function that adds 1. What the optimizer would have removed is taken for such a global. So a program that was to start
# faster compiles anew in every process. Output seen:
#   NUMBA_OPT=3: caller leaf kept, no warning
#   NUMBA_OPT=1: caller leaf kept, no warning
#   NUMBA_OPT=0: leaf kept, NumbaWarning: Cannot cache compiled function "caller" as it uses dynamic globals
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numba==0.68.1
cat > "$folder/module.py" <<'PYTHON'
import os
import warnings
from pathlib import Path

from numba import njit


@njit(cache=True)
def leaf(number):
    return number + 1


@njit(cache=True)
def caller(number):
    return leaf(number)


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    leaf(1.0)
    caller(1.0)
kept = sorted(path.name.split(".")[1].split("-")[0] for path in Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.nbc"))
told = [f"{each.category.__name__}: {str(each.message).split(' (')[0]}" for each in caught]
print(f"NUMBA_OPT={os.environ['NUMBA_OPT']}: {' '.join(kept)} kept, {'; '.join(told) or 'no warning'}")
PYTHON
found=$(for level in 3 1 0; do
    NUMBA_OPT=$level NUMBA_CACHE_DIR="$folder/cache$level" "$folder/venv/bin/python" "$folder/module.py"
done)
echo "$found"
[ "$found" = 'NUMBA_OPT=3: caller leaf kept, no warning
NUMBA_OPT=1: caller leaf kept, no warning
NUMBA_OPT=0: leaf kept, NumbaWarning: Cannot cache compiled function "caller" as it uses dynamic globals' ]
