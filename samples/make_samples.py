"""Make every file in this folder anew: `make samples`. Needs Debian's flite and espeak-ng.

`python samples/make_samples.py --voices` makes the samples of the voices alone, and needs neither.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import vqcodec
from vqcodec import prior

SAMPLES = Path(__file__).parent
TEXTS = {
    "slt": "The codes hold what is said, and a separate vector holds who says it.",
    "rms": "A quick recording becomes a short string of numbers, and a voice again.",
    "espeak": "Even a robot may borrow the voice of a person.",
}
VOICES = ("p225", "p239", "ls26")
SCHEMES: tuple[prior.Scheme, ...] = ("prior", "histogram", "uniform")
BABBLE_SECONDS = 5.0


def synthesize(name: str, path: Path) -> None:
    """Speak the text of a sample to a WAV file."""
    if name == "espeak":
        command = ["espeak-ng", "-v", "en-us", "-s", "140", "-w", str(path), TEXTS[name]]
    else:
        command = ["flite", "-voice", name, "-t", TEXTS[name], "-o", str(path)]
    subprocess.run(command, check=True)


def speak_with_every_voice(codec: vqcodec.Codec) -> None:
    """The same sentence in every voice of the model."""
    folder = SAMPLES / "voices"
    folder.mkdir(exist_ok=True)
    codes = codec.encode(SAMPLES / "slt.wav")
    for voice in codec.voices:
        codec.decode_to(folder / f"{voice}.ogg", codes, speaker=voice)


def main() -> None:
    """Recordings, their codes, reconstructions and conversions; and speech that nobody spoke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--voices", action="store_true", help="only the samples of the voices")
    only_voices = parser.parse_args().voices
    codec = vqcodec.load(voices=False)
    if only_voices:
        speak_with_every_voice(codec)
        return
    for name in TEXTS:
        source = SAMPLES / f"{name}.wav"
        synthesize(name, source)
        codes = codec.encode(source)
        codes.save(SAMPLES / f"{name}.codes")
        for decoder in codec.decoders:
            codec.decode_to(SAMPLES / f"{name}.{decoder}.wav", codes, decoder=decoder)
        for voice in VOICES:
            codec.decode_to(SAMPLES / f"{name}.as-{voice}.wav", codes, speaker=voice)
        codec.decode_to(SAMPLES / f"{name}.refined.wav", codec.encode(source, refine=True))
    speak_with_every_voice(codec)
    babbler = prior.load(codec)
    for scheme in SCHEMES:
        codes = babbler.sample(BABBLE_SECONDS, speaker=codec.voices["p239"], scheme=scheme)
        codec.decode_to(SAMPLES / f"babble.{scheme}.wav", codes)


if __name__ == "__main__":
    main()
