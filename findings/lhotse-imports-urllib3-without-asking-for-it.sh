#!/usr/bin/env bash
# Lhotse 1.33.0 cannot be imported after `pip install lhotse`: it imports urllib3, from its first module on, and does
# not list it among what it requires. Where another package (requests, botocore) brought urllib3, nobody notices.
# Output seen:
#   ModuleNotFoundError: No module named 'urllib3'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lhotse==1.33.0 torch==2.14.1 numpy==2.4.6 soundfile==0.14.0
said=$("$folder/venv/bin/python" -c "import lhotse" 2>&1 || true)
tail -n 1 <<<"$said"
grep -q "^ModuleNotFoundError: No module named 'urllib3'" <<<"$said"
"$folder/venv/bin/pip" install --quiet urllib3==2.8.0
"$folder/venv/bin/python" -c "import lhotse; print('with urllib3:', lhotse.__version__)"
