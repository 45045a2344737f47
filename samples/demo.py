"""Encode, decode and convert a bundled sample, and say what came of it: `make demo`."""

from __future__ import annotations

from pathlib import Path

import soundfile

import vqcodec
from vqcodec.format.codes import Codes

SAMPLES = Path(__file__).parent
OUTPUT = SAMPLES.parent / "demo"
VOICES = ("p225", "ls26")


def main() -> None:
    """Write demo/*.wav and print bit rates, sizes and places."""
    OUTPUT.mkdir(exist_ok=True)
    source = SAMPLES / "rms.wav"
    codec = vqcodec.load()
    codes: Codes = codec.encode(source)
    size = codes.save(OUTPUT / "rms.codes")
    codec.decode_to(OUTPUT / "rms.wav", codes)
    for voice in VOICES:
        codec.decode_to(OUTPUT / f"rms.{voice}.wav", codes, speaker=voice)
    original = soundfile.info(source)
    print(f"recording   {source}  {original.duration:.2f} s, {source.stat().st_size} bytes")
    print(
        f"codes       {OUTPUT / 'rms.codes'}  {size} bytes, "
        f"{codes.bits_per_second:.0f} bit/s with its header, of "
        f"{codes.nominal_bits_per_second:.0f} before entropy coding"
    )
    print(f"decoded     {OUTPUT / 'rms.wav'}")
    for voice in VOICES:
        print(f"as {voice:8} {OUTPUT / f'rms.{voice}.wav'}")


if __name__ == "__main__":
    main()
