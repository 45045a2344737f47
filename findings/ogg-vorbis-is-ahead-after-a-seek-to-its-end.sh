#!/usr/bin/env bash
# Whoever reads Ogg Vorbis from a place on by soundfile 0.14.0 (libsndfile 1.2.2) gets something else near the end:
# libsndfile reckons where a page begins from where it ends and how long its packets are, but the last page ends before
# its last packet does, whose padding it cuts off. What comes under the asked number lies as much further on as there is
# padding, 27 ms at the most of those below, in each file another number; the last samples are padding. Lengths and
# tell() are as asked for, so clips from the ends of recordings lie beside their codes, labels and pitch, and nothing
# says so. Places that are at most two seconds further on are right, since libsndfile does not search for those: so are
# short files, and blocks read one after another. Output seen (20 recordings of 3 to 12 s at 16 kHz by each program):
#   by soundfile, the last 0.05 s: 17 of 20 are ahead, by 10 to 438 samples
#   by soundfile, the last 0.3 s: 15 of 20 are ahead, by 10 to 438 samples
#   by ffmpeg, the last 0.05 s: 19 of 20 are ahead, by 10 to 438 samples
#   by ffmpeg, the last 0.3 s: 13 of 20 are ahead, by 18 to 438 samples
#   by soundfile, the last 0.3 s of 1 to 2 s: 0 of 20 are ahead
set -euo pipefail
command -v ffmpeg >/dev/null || { echo "install ffmpeg" && exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet soundfile==0.14.0 numpy==2.4.6
"$folder/venv/bin/python" - "$folder/voice.ogg" <<'PYTHON'
import subprocess
import sys

import numpy as np
import soundfile

path, rate, rng = sys.argv[1], 16_000, np.random.default_rng(0)
assert soundfile.__libsndfile_version__ == "1.2.2"
time = np.arange(12 * rate) / rate
syllables = np.sin(2 * np.pi * 1.7 * time)
phase = 2 * np.pi * np.cumsum(120 * (1 + 0.2 * np.sin(2 * np.pi * 0.7 * time))) / rate
vowel = sum(np.sin(k * phase) / k for k in range(1, 40)) * np.clip(syllables, 0, 1)
hiss = rng.standard_normal(len(time)) * np.clip(-syllables, 0, 1)
voice = 0.3 * vowel + 0.05 * hiss + 1e-3 * rng.standard_normal(len(time))
voice = (0.5 * voice / np.abs(voice).max()).astype(np.float32)


def by_soundfile(sound):
    soundfile.write(path, sound, rate, "VORBIS", format="OGG")


def by_ffmpeg(sound):
    raw = ["-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "-"]
    ffmpeg = ["ffmpeg", "-y", "-loglevel", "error", *raw, "-c:a", "libvorbis", path]
    subprocess.run(ffmpeg, input=sound.tobytes(), check=True)


def ahead(whole, start):
    with soundfile.SoundFile(path) as file:
        file.seek(start)
        assert file.tell() == start
        clip = file.read(dtype="float32")
    assert len(clip) == len(whole) - start
    candidates = np.lib.stride_tricks.sliding_window_view(whole[start:], 200)
    number = int(np.abs(candidates - clip[:200]).max(axis=1).argmin())
    assert np.allclose(clip[: len(clip) - number], whole[start + number :], atol=1e-5)
    return number


def measure(name, write, shortest, longest, seconds):
    found = []
    for length in (np.random.default_rng(0).uniform(shortest, longest, 20) * rate).astype(int):
        write(voice[:length])
        whole, _ = soundfile.read(path, dtype="float32")
        blocks = np.concatenate(list(soundfile.blocks(path, 1600, dtype="float32")))
        assert np.array_equal(blocks, whole)
        assert len(whole) == length and np.corrcoef(whole, voice[:length])[0, 1] > 0.9
        if number := ahead(whole, length - int(seconds * rate)):
            found.append(number)
    by = f", by {min(found)} to {max(found)} samples" if found else ""
    print(f"{name}: {len(found)} of 20 are ahead{by}")
    return len(found), max(found, default=0)


for name, write in (("soundfile", by_soundfile), ("ffmpeg", by_ffmpeg)):
    for seconds in (0.05, 0.3):
        n_ahead, most = measure(f"by {name}, the last {seconds} s", write, 3, 12, seconds)
        assert n_ahead >= 8 and most > 160
assert measure("by soundfile, the last 0.3 s of 1 to 2 s", by_soundfile, 1, 2, 0.3) == (0, 0)
PYTHON
