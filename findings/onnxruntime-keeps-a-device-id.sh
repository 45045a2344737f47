#!/usr/bin/env bash
# onnxruntime writes three files as soon as it is imported on Linux, from 1.29.0 on, before there is any session: a
# device identifier and a database of telemetry below the home folder, and a session identifier among temporary files.
# 1.28.0 writes none. disable_telemetry_events() comes after the import, and so too late: all three are there.
# ORT_DISABLE_TELEMETRY=1, set before, keeps them away. A program that promises to keep or tell nothing of its users
# breaks its word by an upgrade that its version range allows. Output seen:
#   1.28.0: nothing
#   1.29.0: .cache/Microsoft/DeveloperTools/.onnxruntime/deviceid
#   1.29.0: .cache/Microsoft/DeveloperTools/.onnxruntime/onnxruntime.db
#   1.29.0: tmp/.ses
#   1.32.0: .cache/Microsoft/DeveloperTools/.onnxruntime/deviceid
#   1.32.0: .cache/Microsoft/DeveloperTools/.onnxruntime/onnxruntime.db
#   1.32.0: tmp/.ses
#   1.32.0, disable_telemetry_events(): the same
#   1.32.0, ORT_DISABLE_TELEMETRY=1: nothing
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 1.28.0 1.29.0 1.32.0; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet "onnxruntime==$version"
done

# written VERSION CODE [NAME=VALUE]: what is new in a home folder after an import and that.
written() {
    home=$(mktemp -d -p "$folder")
    mkdir "$home/tmp"
    env -u ORT_DISABLE_TELEMETRY -u XDG_CACHE_HOME HOME="$home" TMPDIR="$home/tmp" ${3+"$3"} \
        "$folder/$1/bin/python" -c "import onnxruntime; $2"
    (cd "$home" && find . -type f \( -name deviceid -o -name '*.db' -o -name .ses \) | sed 's/^..//' | LC_ALL=C sort)
}

before=$(written 1.28.0 pass)
first=$(written 1.29.0 pass)
plain=$(written 1.32.0 pass)
late=$(written 1.32.0 'onnxruntime.disable_telemetry_events()')
off=$(written 1.32.0 pass ORT_DISABLE_TELEMETRY=1)
kept='.cache/Microsoft/DeveloperTools/.onnxruntime'
expected=$(printf '%s\n' "$kept/deviceid" "$kept/onnxruntime.db" tmp/.ses)
echo "1.28.0: ${before:-nothing}"
echo "$first" | sed 's/^/1.29.0: /'
echo "$plain" | sed 's/^/1.32.0: /'
[ "$late" = "$plain" ] && echo '1.32.0, disable_telemetry_events(): the same'
echo "1.32.0, ORT_DISABLE_TELEMETRY=1: ${off:-nothing}"
[ -z "$before$off" ] && [ "$first" = "$expected" ] && [ "$plain" = "$expected" ] && [ "$late" = "$expected" ]
