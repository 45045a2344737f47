"""What TensorBoard shows of a training: audio and spectrograms, true and decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcodec.data.dataset import Batch
from vqcodec.training.objective import Objective

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

N_FFT = 1024


def add_example(writer: SummaryWriter, objective: Objective, batch: Batch, step: int) -> None:
    """Write the first segment of a batch, and what the fast decoder makes of it.

    Args:
        writer: TensorBoard's.
        objective: in evaluation mode, with a fast decoder.
        batch: on the objective's device.
        step: that it is shown at.
    """
    model = objective.model
    assert model.fast is not None
    reference = batch.speaker if model.config.speaker.kind == "table" else batch.reference
    true = batch.waveform[:1]
    bottleneck = model.bottleneck(true, reference[:1])
    decoded = model.fast(model.condition(bottleneck.quantized.quantized, bottleneck.speaker, true))
    for name, waveform in (("true", true), ("decoded", decoded)):
        writer.add_audio(name, waveform.clamp(-1, 1), step, model.config.sample_rate)
        log_mel = objective.waveform_loss.spectral.log_mel(waveform, N_FFT)[0].T
        image = (log_mel - log_mel.min()) / (log_mel.max() - log_mel.min() + 1e-6)
        writer.add_image(f"log_mel/{name}", image.flip(0)[None], step)
