#!/usr/bin/env bash
# torchaudio 2.11.1 requires "torch>=2.11" by its metadata, so pip installs it beside torch 2.11.0 and
# `pip check` finds nothing wrong; yet importing it there raises OSError, since its library asks for a
# symbol that only later releases of torch export. Seen with torch 2.11.0 and torchaudio 2.11.1,
# Linux x86_64, Python 3.11:
#   No broken requirements found.
#   OSError: libtorchaudio.so: undefined symbol: torch_exception_get_what_without_backtrace
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.11.0 torchaudio==2.11.1
"$folder/venv/bin/pip" check
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import requires

print("torchaudio requires", requires("torchaudio"))
assert any(line.startswith("torch>=2.11") for line in requires("torchaudio"))
try:
    import torchaudio
except OSError as error:
    reason = str(error.__cause__).rsplit("/", 1)[-1]
    print("OSError:", reason)
    assert reason.startswith("libtorchaudio.so: undefined symbol")
else:
    raise SystemExit("torchaudio now imports beside torch 2.11.0")
PYTHON
