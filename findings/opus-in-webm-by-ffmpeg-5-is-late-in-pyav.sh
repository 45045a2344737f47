#!/usr/bin/env bash
# WebM tells twice what of an Opus stream precedes the sound: as pre-skip, in samples at 48 kHz, and as
# CodecDelay, in nanoseconds. FFmpeg 5.1 (Debian 12's) writes 312 samples as the first for sound of 16 kHz, but as
# the second what 312 samples would last if 104 of them were one at 48 kHz. FFmpeg 5.1 reads its own file right;
# PyAV 18.1.0, with the newer FFmpeg that it ships, goes by the second, and everything comes 208 samples, 4.3 ms,
# late. Made of 48 kHz sound, nothing is late. Output seen:
#   made of 48000 Hz: late by 0 in ffmpeg, by 0 in PyAV, samples at 48 kHz
#   made of 16000 Hz: late by 0 in ffmpeg, by 208 in PyAV, samples at 48 kHz
set -euo pipefail
version=$(dpkg-query --show --showformat '${Version}' ffmpeg) || { echo "install Debian's ffmpeg" && exit 2; }
case $version in 7:5.1.*) ;; *) echo "this is about ffmpeg 5.1, not $version" && exit 2 ;; esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import subprocess
import sys

import av
import numpy as np

# Three seconds of noise below 3 kHz, at 48 kHz; every third sample of it at 16 kHz.
rng = np.random.default_rng(0)
spectrum = np.fft.rfft(rng.standard_normal(3 * 48_000))
spectrum[3 * 3_000 :] = 0
sound = np.fft.irfft(spectrum)
sound = (sound / np.abs(sound).max() / 2).astype(np.float32)


def late(decoded):
    size = len(decoded) + len(sound)
    spectra = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(sound, size))
    return int(np.fft.irfft(spectra, size).argmax())


def lags(rate):
    path, ffmpeg = f"{sys.argv[1]}/{rate}.webm", ["ffmpeg", "-loglevel", "error"]
    raw = ["-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "-"]
    subprocess.run(
        [*ffmpeg, *raw, "-c:a", "libopus", path], input=sound[:: 48_000 // rate].tobytes(), check=True
    )
    back = subprocess.run([*ffmpeg, "-i", path, "-f", "f32le", "-"], stdout=subprocess.PIPE, check=True)
    with av.open(path) as container:
        by_pyav = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    found = late(np.frombuffer(back.stdout, np.float32)), late(by_pyav)
    print(f"made of {rate} Hz: late by {found[0]} in ffmpeg, by {found[1]} in PyAV, samples at 48 kHz")
    return found


assert (lags(48_000), lags(16_000)) == ((0, 0), (0, 208))
PYTHON
