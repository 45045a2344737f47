#!/usr/bin/env bash
# The entropy coders of constriction 0.5.0, which codecs take for their code files, cannot be installed on Linux on
# 64-bit Arm: containers on Apple's machines, Graviton, Raspberry Pi. Of 508 files that were ever released for pip, none
# is for it and none is source to build it from, while macOS on Arm has wheels, as has Linux on Arm for packages beside
# it. On x86-64 all installs, so a project that is tested there does not notice. Output seen:
#   constriction 0.5.0, Linux on x86-64: a wheel
#   constriction 0.5.0, macOS on 64-bit Arm: a wheel
#   constriction 0.5.0, Linux on 64-bit Arm: none
#   constriction 0.5.0, source: none
#   safetensors 0.8.0, Linux on 64-bit Arm: a wheel
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"

# Says whether pip finds a file of a release for a platform: name version what expected, then options of pip.
check() {
    local name=$1 version=$2 what=$3 expected=$4 found="a wheel"
    shift 4
    if ! "$folder/venv/bin/pip" download --quiet --no-deps --no-build-isolation --dest "$folder/files" "$@" \
        "$name==$version" >"$folder/log" 2>&1; then
        grep -q "No matching distribution found" "$folder/log" || { cat "$folder/log"; exit 1; }
        found=none
    fi
    echo "$name $version, $what: $found"
    [ "$found" = "$expected" ]
}

wheels=(--only-binary :all: --python-version 3.12)
check constriction 0.5.0 "Linux on x86-64" "a wheel" "${wheels[@]}" --platform manylinux2014_x86_64
check constriction 0.5.0 "macOS on 64-bit Arm" "a wheel" "${wheels[@]}" --platform macosx_11_0_arm64
check constriction 0.5.0 "Linux on 64-bit Arm" none "${wheels[@]}" --platform manylinux2014_aarch64 \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_34_aarch64 --platform linux_aarch64
check constriction 0.5.0 source none --no-binary :all:
check safetensors 0.8.0 "Linux on 64-bit Arm" "a wheel" "${wheels[@]}" --platform manylinux2014_aarch64
