#!/usr/bin/env bash
# In numba 0.68.1 the assignment of one array to another, `a[:] = b`, compiles 38 functions (37 in 0.61.2), most of them
# for text: the message about shapes that differ is put together in compiled code (str, repr, concatenation). A loop
# over the elements compiles one, as does `a[:] = 0`, and takes some twenty to thirty times less CPU time. Whoever wants
# a function to compile quickly writes the loop. Output seen:
#   loop: 1 function
#   zeros: 1 function
#   assignment: 38 functions, among them integer_str and unicode_concat
#   assignment, CPU time over that of the loop: 26
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numba==0.68.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import time

import numpy as np
from numba import njit
from numba.core import event

compiled = []


class Listener(event.Listener):
    def on_start(self, found):
        compiled.append(str((found.data or {}).get("dispatcher")))

    def on_end(self, found):
        pass


event.register("numba:compile", Listener())


@njit
def loop(target, source):
    for index in range(len(target)):
        target[index] = source[index]


@njit
def zeros(target, source):
    target[:] = 0


@njit
def assignment(target, source):
    target[:] = source


def measure(function, dtype):
    compiled.clear()
    values = np.ones(4, dtype)
    start = time.process_time()
    function(values, values.copy())
    return len(compiled), " ".join(compiled), time.process_time() - start


measure(loop, np.float32)  # what the first of all costs
counts = {}
for function in (loop, zeros):
    counts[function], _, _ = measure(function, np.int32)
    print(f"{function.__name__}: {counts[function]} function")
_, _, alone = measure(loop, np.float64)
count, names, taken = measure(assignment, np.float64)
print(f"assignment: {count} functions, among them integer_str and unicode_concat")
print(f"assignment, CPU time over that of the loop: {taken / alone:.0f}")
assert set(counts.values()) == {1}
assert count == 38 and all(name in names for name in ("integer_str", "unicode_concat"))
assert taken > 5 * alone
PYTHON
