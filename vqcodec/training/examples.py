"""What TensorBoard shows of a training: audio and spectrograms, true and decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcodec.data.batches import Batch
from vqcodec.training.encoder_objective import EncoderObjective
from vqcodec.training.objective import Objective

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

N_FFT = 1024


def add_example(
    writer: SummaryWriter, objective: Objective | EncoderObjective, batch: Batch, step: int
) -> None:
    """Write the first segment of a batch, on the objective's device, and what is made of it.

    The objective is in evaluation mode, with a decoder that makes a waveform in one pass.
    """
    decoded = objective(batch).decoded
    assert decoded is not None
    sample_rate = objective.model.config.sample_rate
    for name, waveform in (("true", batch.waveform[:1]), ("decoded", decoded[:1])):
        writer.add_audio(name, waveform.clamp(-1, 1), step, sample_rate)
        log_mel = objective.waveform_loss.spectral.log_mel(waveform, N_FFT)[0].T
        image = (log_mel - log_mel.min()) / (log_mel.max() - log_mel.min() + 1e-6)
        writer.add_image(f"log_mel/{name}", image.flip(0)[None], step)
