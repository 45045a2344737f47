"""Sampling from a WaveNet in PyTorch, with queues (Paine et al. 2016, arXiv 1611.09482).

Each layer keeps its last `dilation` inputs, so a step computes one column of every layer instead
of the whole receptive field. On a GPU a step is some two hundred small kernels, and starting them
one by one takes longer than running them; so the steps of a whole hop are captured once as a CUDA
graph and replayed for every code. All state lives in tensors of fixed size and place, as a graph
demands. Without a GPU the same steps run uncaptured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from vqcodec.models.mu_law import SILENCE, LevelDecoder
from vqcodec.models.wavenet import WaveNet


class GraphSampler:
    """State of sampling B recordings side by side.

    Args:
        wavenet: in evaluation mode, on the device where it shall run.
        seeds: of each recording: its samples do not depend on what else is in the batch.
        temperature: factor of `WaveNetConfig.temperatures`; 0 takes the peak of a distribution.
    """

    @torch.no_grad()
    def __init__(
        self,
        wavenet: WaveNet,
        *,
        seeds: Sequence[int | Sequence[int]],
        temperature: float = 1.0,
    ) -> None:
        self.wavenet = wavenet
        self.temperatures = [temperature * own for own in wavenet.config.temperatures]
        self.generators = [np.random.default_rng(seed) for seed in seeds]
        n_lanes, hop_length = len(seeds), wavenet.hop_length
        weight = wavenet.embedding.weight
        width = weight.shape[1]
        dilations = torch.tensor([layer.dilation for layer in wavenet.layers])
        self.dilations = dilations.to(weight.device)
        self.starts = (dilations.cumsum(0) - dilations).to(weight.device)
        self.slots = torch.zeros_like(self.starts)
        self.past = weight.new_zeros(int(dilations.sum()), n_lanes, width)
        self.held = weight.new_zeros(len(dilations), n_lanes, 2 * width)
        n_bands = wavenet.n_bands
        self.levels = torch.full((n_lanes, n_bands), SILENCE, device=weight.device)
        self.draws = weight.new_zeros(hop_length, n_lanes, dtype=torch.float64)
        self.sampled = self.levels.new_zeros(hop_length // n_bands, n_lanes, n_bands)
        config = wavenet.config
        n_taps = config.prediction_order + config.coarse_steps
        self.taps = weight.new_zeros(n_lanes, n_bands * n_taps, n_bands)
        self.samples = weight.new_zeros(n_lanes, config.prediction_order, n_bands)
        n_coarse = config.coarse_channels(hop_length)
        self.coarse = weight.new_zeros(n_lanes, n_coarse // n_bands, n_bands)
        self.synthesize = LevelDecoder(n_lanes, n_bands, wavenet.config.pre_emphasis)
        self._run: Callable[[], None] = self._hop
        if weight.is_cuda:
            self._run = self._captured()

    def _captured(self) -> Callable[[], None]:
        """The steps of a hop as one launch; the state is left as it was."""
        state = (self.slots, self.past, self.levels, self.samples)
        before = [tensor.clone() for tensor in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # libraries set themselves up outside the capture
            self._hop()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._hop()
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
        return graph.replay

    def _hop(self) -> None:
        wavenet = self.wavenet
        for index, draws in enumerate(self.draws.unflatten(0, (-1, wavenet.n_bands))):
            coarse = self.heard(index)
            expected = self.expected(coarse)
            band_inputs, levels = self.inputs(expected, coarse), []
            for band in range(wavenet.n_bands):
                logits = wavenet.band_logits(band_inputs[:, band], band, expected)
                levels.append(self._choose(logits, draws[band], self.temperatures[band]))
                if band < wavenet.n_bands - 1:
                    lower = wavenet.told_lower(levels[-1], band)
                    band_inputs = band_inputs + lower[:, None]
            self.tell(torch.stack(levels, dim=-1))
            self.sampled[index].copy_(self.levels)

    def hear(self, code: Tensor) -> None:
        """Take what is told of the next code, (B, _) of `WaveNet.per_code`."""
        told, coarse = self.wavenet.split(code)
        held = [layer.condition(told) for layer in self.wavenet.layers]  # type: ignore[operator]
        self.held.copy_(torch.stack(held))
        if self.wavenet.prediction is not None:
            self.taps.copy_(self.wavenet.prediction.taps(told))
        if coarse is not None:
            self.coarse.copy_(coarse)

    def heard(self, index: int) -> Tensor | None:
        """What that step of the code hears of the coarse bands, if any, (B, coarse_steps * M)."""
        if self.wavenet.coarse is None:
            return None
        return self.coarse[:, index : index + self.wavenet.config.coarse_steps].flatten(1)

    def tell(self, levels: Tensor) -> None:
        """Go on from the levels (B, M) of a step."""
        self.levels.copy_(levels)
        if self.wavenet.prediction is not None:
            heard = self.wavenet.prediction.heard(self.levels)
            self.samples.copy_(torch.cat([self.samples[:, 1:], heard[:, None]], dim=1))

    def expected(self, coarse: Tensor | None) -> Tensor | None:
        """What the filter, if there is one, expects of the next step, (B, M)."""
        prediction = self.wavenet.prediction
        if prediction is None:
            return None
        past = self.samples.flatten(1)
        if coarse is not None:
            past = torch.cat([past, coarse], dim=-1)
        return prediction.expect(past[:, None], self.taps)[:, 0]

    def inputs(self, expected: Tensor | None, coarse: Tensor | None) -> Tensor:
        """What each band of the next step begins from, (B, M, W)."""
        rows = self.starts + self.slots
        older = self.past[rows]
        x = self.wavenet.embed(self.levels, expected, coarse)
        inputs, skips = [], []
        for layer, past, held in zip(self.wavenet.layers, older, self.held, strict=True):
            inputs.append(x)
            x, skip = layer.step(past, x, held)  # type: ignore[operator]
            skips.append(skip)
        self.past.index_copy_(0, rows, torch.stack(inputs))
        self.slots.add_(1).remainder_(self.dilations)
        return self.wavenet.band_inputs(torch.stack(skips).sum(0))

    def _choose(self, logits: Tensor, draws: Tensor, temperature: float) -> Tensor:
        if temperature == 0:
            return logits.argmax(-1)
        cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
        # Counting the sums that a draw has passed finds its level; rounding may leave the last
        # sum under the draw.
        return (cumulative <= draws[:, None]).sum(-1).clamp(max=logits.shape[-1] - 1)

    @torch.no_grad()
    def blocks(self, condition: Tensor) -> Iterator[Tensor]:
        """Sample the hops of a condition; call again with what follows to go on.

        From (B, N, _) of `WaveNet.per_code` to (B, hop_length) float32 of each code.
        """
        for code in condition.unbind(1):
            uniform = np.stack([rng.random(len(self.draws)) for rng in self.generators], axis=1)
            self.draws.copy_(torch.from_numpy(uniform))
            self.hear(code)
            self._run()
            waveform = self.synthesize(self.sampled.transpose(0, 1).cpu().numpy())
            yield torch.from_numpy(waveform).to(condition.device)
