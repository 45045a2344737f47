"""A walk through the audio model: one recording from the waveform to codes and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
import torch.nn.functional as F

import vqcodec
from vqcodec import audio
from vqcodec.evaluation.plots import new_figure
from vqcodec.models.encoder import INPUT_GAIN, FilterbankEncoder

RECORDING = Path(__file__).parents[1] / "samples" / "rms.wav"
VOICE = "p225"  # of a woman
SHOWN = slice(100, 148)  # codes


def draw(axis: Any, picture: np.ndarray, title: str, cmap: str = "magma") -> None:
    """A picture (rows, time), the first row below."""
    low, high = np.quantile(picture, [0.02, 0.998])
    axis.imshow(picture, origin="lower", aspect="auto", cmap=cmap, vmin=low, vmax=high)
    axis.set_title(title, fontsize=9, loc="left")
    axis.set(xticks=[], yticks=[])


def listen(axis: Any, waveform: np.ndarray, rate: int, title: str) -> None:
    """A spectrogram."""
    axis.specgram(waveform, NFFT=512, Fs=rate, noverlap=384, cmap="magma", vmin=-120)
    axis.set_title(title, fontsize=9, loc="left")
    axis.set(xticks=[], yticks=[])


def likeness(speaker: vqcodec.Speaker, other: vqcodec.Speaker) -> float:
    """Cosine of the angle between two voices."""
    one, two = (who.vector.astype(float) for who in (speaker, other))
    return float(one @ two / np.linalg.norm(one) / np.linalg.norm(two))


def run(folder: Path, *, quick: bool = False) -> common.Measured:
    """One recording as waveform, filterbank, latents, codes, decoded and converted."""
    codec = vqcodec.load(voices=False)
    rate, model = codec.sample_rate, codec.model
    waveform = audio.load(RECORDING, rate)
    codes = codec.encode(RECORDING)
    decoded, converted = codec.decode(codes), codec.decode(codes, speaker=VOICE)
    # What the encoder hears: no offset, always one level, whole hops.
    (speech,) = audio.open_recording(RECORDING).speech(rate, len(waveform), codes.gain)
    levelled = torch.from_numpy(speech / np.float32(codes.gain))[None]
    levelled = F.pad(levelled, (0, -len(speech) % codec.hop_length))
    assert isinstance(model.encoder, FilterbankEncoder)
    with torch.no_grad():
        bank = model.encoder.filterbank(INPUT_GAIN * levelled)[0].numpy()
        latents = model.norm(model.encoder(levelled))[0].numpy()
        own_codes = model.encode(levelled)
        quantized = model.latents(own_codes)[0].numpy()

    figure = new_figure(7, 9)
    axes = figure.subplots(8, 1)
    axes[0].plot(waveform, linewidth=0.4)
    axes[0].set_title("waveform", fontsize=9, loc="left")
    axes[0].set(xticks=[], yticks=[], xlim=(0, len(waveform)))
    stride = codec.config.encoder.strides[0]
    draw(axes[1], bank, f"filterbank: {len(bank)} learnt filters, every {stride} samples")
    first, last = SHOWN.start, SHOWN.stop - 1
    title = f"latents {first} to {last}: {len(latents)} numbers every {codec.hop_length} samples"
    draw(axes[2], latents[:, SHOWN], title)
    draw(axes[3], quantized[:, SHOWN], "the same after quantisation")
    draw(axes[4], codes.codes[:, SHOWN], f"codes {first} to {last}", cmap="Pastel1")
    for place, code in enumerate(codes.codes[0, SHOWN]):
        axes[4].text(place, 0, code, rotation=90, fontsize=7, ha="center", va="center")
    pitch = codes.symbols["pitch"]
    axes[5].plot(np.where(pitch > 0, pitch, np.nan), ".", markersize=3)
    axes[5].set_title(
        "pitch symbols, about the speaker's mean (whole recording)", fontsize=9, loc="left"
    )
    axes[5].set(xticks=[], yticks=[], xlim=(0, len(pitch)))
    listen(axes[6], decoded, rate, "decoded, 0 to 8 kHz")
    listen(axes[7], converted, rate, f"converted: the same codes, said by {VOICE}")
    common.save(figure, folder / "audio_model.png")

    own = codec.speaker(waveform, rate)
    voices = {"decoded": codec.speaker(decoded, rate), "converted": codec.speaker(converted, rate)}
    measured: common.Measured = {
        "samples": len(waveform),
        "latents": f"{latents.shape[1]} of {latents.shape[0]} numbers",
        "codes": f"{codes.n_codes} of {codes.bits_per_code} bits",
        "pitch symbols": len(pitch),
        "bytes of the file": len(codes.to_bytes()),
        "bits per second": codes.bits_per_second,
        "codes that the networks by themselves find": float(
            (own_codes[0].numpy() == codes.codes).mean()
        ),
    }
    for name, voice in voices.items():
        measured[f"{name}: likeness to the speaker"] = likeness(voice, own)
        measured[f"{name}: likeness to {VOICE}"] = likeness(voice, codec.voices[VOICE])
    return measured


if __name__ == "__main__":
    common.start(run)
