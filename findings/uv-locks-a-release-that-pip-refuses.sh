#!/usr/bin/env bash
# uv ignores upper bounds of Requires-Python, pip obeys them. resemblyzer 0.1.4 (speaker embeddings) asks for
# the old backport "typing"; uv 0.13.9 locks typing 3.10.0.0, whose metadata say Requires-Python <3.5, and the
# lock that it wrote cannot be installed by pip on Python 3.11:
#   typing==3.10.0.0
#   ERROR: No matching distribution found for typing==3.10.0.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uv==0.13.9
echo resemblyzer==0.1.4 >"$folder/wanted.txt"
"$folder/venv/bin/uv" pip compile --quiet --python-version 3.11 "$folder/wanted.txt" -o "$folder/lock.txt"
grep -x 'typing==3.10.0.0' "$folder/lock.txt"
if "$folder/venv/bin/pip" download --quiet --no-deps --dest "$folder" typing==3.10.0.0 2>"$folder/errors.txt"; then
    echo "pip now installs what uv locks" && exit 1
fi
grep -o 'ERROR: No matching distribution found for typing==3.10.0.0' "$folder/errors.txt"
