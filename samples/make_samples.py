"""Make every file in this folder anew: `make samples`. Needs Debian's flite and espeak-ng."""

from __future__ import annotations

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


def main() -> None:
    """Recordings, their codes, reconstructions and conversions; and speech that nobody spoke."""
    codec = vqcodec.load()
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
    babbler = prior.load(codec)
    for scheme in SCHEMES:
        codes = babbler.sample(BABBLE_SECONDS, speaker=codec.voices["p239"], scheme=scheme)
        codec.decode_to(SAMPLES / f"babble.{scheme}.wav", codes)


if __name__ == "__main__":
    main()
