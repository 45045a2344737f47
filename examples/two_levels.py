"""Two levels of codes: VQ-VAE-2 on photographs, and codes and melody of speech."""

from __future__ import annotations

from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path

import common
import numpy as np
import torch
from common import psnr
from photographs import crops, patches, photographs
from torch import Tensor, nn

import vqcodec
from vqcodec import audio
from vqcodec.evaluation.plots import new_figure
from vqcodec.evaluation.recognition import find_recognizer
from vqcodec.models.config import QuantizerConfig

DIM, WIDTH, CODEBOOK_SIZE = 64, 48, 256
RECORDING = Path(__file__).parents[1] / "samples" / "rms.wav"
TEXT = "a quick recording becomes a short string of numbers and a voice again"
RATE = 16_000


class TwoLevels(nn.Module):
    """Razavi et al. 2019 (arXiv 1906.00446): the fine level is told what the coarse one says."""

    def __init__(self, unquantized_steps: int) -> None:
        super().__init__()
        config = QuantizerConfig(dim=DIM, codebook_size=CODEBOOK_SIZE)
        self.fine_encoder = common.image_encoder(3, WIDTH, DIM)
        self.coarse_encoder = nn.Conv2d(DIM, DIM, 4, 2, padding=1)
        self.coarse = common.ImageQuantizer(config, unquantized_steps)
        self.enlarge = nn.ConvTranspose2d(DIM, DIM, 4, 2, padding=1)
        self.mix = nn.Conv2d(2 * DIM, DIM, 1)
        self.fine = common.ImageQuantizer(config, unquantized_steps)
        self.decoder = common.image_decoder(2 * DIM, WIDTH, 3)

    def quantize(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, H, W) to latents (B, D, H / 8, W / 8), (B, D, H / 4, W / 4), and a loss."""
        detailed = self.fine_encoder(images)
        coarse, _, coarse_loss = self.coarse(self.coarse_encoder(detailed.relu()))
        fine, _, fine_loss = self.fine(self.mix(torch.cat([self.enlarge(coarse), detailed], 1)))
        return coarse, fine, coarse_loss + fine_loss

    def decode(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Latents of both levels to images."""
        images: Tensor = self.decoder(torch.cat([self.enlarge(coarse), fine], 1))
        return images

    def forward(self, images: Tensor) -> common.Passed:
        """There and back."""
        coarse, fine, loss = self.quantize(images)
        return common.Passed(self.decode(coarse, fine), coarse, loss)


def photographs_in_two_levels(folder: Path, *, quick: bool) -> common.Measured:
    """Leave out each level: in its place there is the mean of what it says."""
    torch.manual_seed(0)
    steps, batch_size = (24, 4) if quick else (800, 8)
    known, (unseen, _) = photographs()
    model = TwoLevels(steps // 8)
    errors = common.fit(model, crops(known[:5], steps, batch_size), steps)
    originals = torch.cat([patches(known[0])[:2], patches(unseen)])
    with torch.no_grad():
        coarse, fine, _ = model.quantize(originals)
        means = [level.mean((0, 2, 3), keepdim=True).expand_as(level) for level in (coarse, fine)]
        sheets = {
            "original": originals,
            "both levels": model.decode(coarse, fine),
            "coarse alone": model.decode(coarse, means[1]),
            "fine alone": model.decode(means[0], fine),
        }
    shown = {title: images[[0, 3]] for title, images in sheets.items()}
    common.save_sheets(folder / "two_levels.png", shown, 1, (5.6, 3.0), across=4)
    measured: common.Measured = {"first error": errors[0], "last error": errors[-1]}
    for title, images in list(sheets.items())[1:]:
        measured[f"PSNR in dB, {title}"] = psnr(images, originals)
    return measured


def shuffled(values: np.ndarray, length: int) -> np.ndarray:
    """Pieces of so many values (..., N) in another order."""
    pieces = np.split(values, range(length, values.shape[-1], length), axis=-1)
    order = np.random.default_rng(0).permutation(len(pieces))
    return np.concatenate([pieces[index] for index in order], axis=-1)


def likeness(melody: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two sequences of pitch symbols where both are voiced."""
    voiced = (melody > 0) & (other > 0)
    return float(np.corrcoef(melody[voiced], other[voiced])[0, 1])


def words_heard(waveform: np.ndarray) -> str:
    """How many words of the text the small recogniser finds."""
    words = find_recognizer("pocketsphinx").transcribe(waveform).split()
    blocks = SequenceMatcher(None, TEXT.split(), words, autojunk=False).get_matching_blocks()
    return f"{sum(block.size for block in blocks)} of {len(TEXT.split())}"


def speech_in_two_streams(folder: Path) -> common.Measured:
    """Shuffle the melody and keep the codes, and the other way about."""
    codec = vqcodec.load(voices=False)
    codes = codec.encode(RECORDING)
    melody = codes.symbols["pitch"].astype(int)
    other_melody = melody.copy()
    other_melody[melody > 0] = shuffled(melody[melody > 0], 8)
    versions = {
        "both streams": codes,
        "melody shuffled": replace(codes, symbols={"pitch": other_melody}),
        "codes shuffled": replace(codes, codes=shuffled(codes.codes, 12)),
    }
    figure = new_figure(7, 4.5)
    recorded = audio.load(RECORDING, RATE)
    measured: common.Measured = {"words heard, the recording": words_heard(recorded)}
    rows = figure.subplots(3, 2)
    for (title, version), (left, right) in zip(versions.items(), rows, strict=True):
        decoded = codec.decode(version, sample_rate=RATE)
        heard = codec.encode(decoded, RATE).symbols["pitch"].astype(int)
        told = version.symbols["pitch"].astype(int)
        measured[f"melody heard and recorded, {title}"] = likeness(heard, melody)
        measured[f"melody heard and told, {title}"] = likeness(heard, told)
        measured[f"words heard, {title}"] = words_heard(decoded)
        left.specgram(decoded, NFFT=512, Fs=RATE, noverlap=384, cmap="magma", vmin=-120)
        left.set_title(title, fontsize=9)
        left.set(xticks=[], yticks=[])
        for label, own in (("told", told), ("heard", heard)):
            right.plot(np.where(own > 0, own, np.nan), ".", label=label, markersize=3)
        right.set(xticks=[], ylim=(10, 54))
        right.set_ylabel("pitch symbol", fontsize=7)
        right.legend(fontsize=7, ncols=2, loc="upper right")
    common.save(figure, folder / "two_streams.png")
    return measured


def run(folder: Path, *, quick: bool = False) -> common.Measured:
    """A coarse and a fine grid of codes; codes and melody."""
    return {**photographs_in_two_levels(folder, quick=quick), **speech_in_two_streams(folder)}


if __name__ == "__main__":
    common.start(run)
