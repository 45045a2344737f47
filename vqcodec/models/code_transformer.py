"""The prior: a causal transformer over the codes of one codebook, given the speaker.

The paper generates codes by an autoregressive prior over them (arXiv 1711.00937, section 3.3). This
one is a pre-norm transformer (Xiong et al. 2020, arXiv 2002.04745) with rotary positions (Su et al.
2021, arXiv 2104.09864) and sliding-window attention (Beltagy et al. 2020, arXiv 2004.05150): a code
attends to as many codes before it wherever it stands, so a sequence of any length is handled alike,
at once or code by code.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqcodec.models.config import PriorConfig

SPEAKER_DIM = 64
INIT_STD = 0.02
# Of the logits before training: with less, as INIT_STD would give, likeness between embeddings
# takes long to tell in the predictions.
LOGIT_STD = 2.0
LONGEST_PERIOD = 10_000.0  # of the rotary angles, in codes over 2 pi


class Cache:
    """The keys and values of the codes seen that later codes attend to.

    Attributes:
        position: codes seen so far.
        n_kept: how many of them later codes may attend to; less than `context`.
    """

    def __init__(self, config: PriorConfig, batch_size: int, device: torch.device) -> None:
        self.context = config.context
        # Twice the context before what is kept moves to the front: seldom, so that a step is cheap.
        heads, capacity = config.n_heads, 3 * config.context
        shape = (config.n_layers, 2, batch_size, heads, capacity, config.channels // heads)
        self._stored = torch.zeros(shape, device=device)
        self._end = self.position = self.n_kept = 0

    def extend(self, layer: int, pairs: Tensor) -> Tensor:
        """Store a layer's keys and values of new codes after those kept.

        From (2, B, heads, N, C / heads), N at most `context`, to (2, B, heads, n_kept + N, C /
        heads).
        """
        end = self._end + pairs.shape[-2]
        self._stored[layer, ..., self._end : end, :] = pairs
        return self._stored[layer, ..., self._end - self.n_kept : end, :]

    def advance(self, n_codes: int) -> None:
        """Go on to the next codes, once every layer has stored so many."""
        self.position += n_codes
        self.n_kept = min(self.position, self.context - 1)
        self._end += n_codes
        if self._end > 2 * self.context:
            kept = self._stored[..., self._end - self.n_kept : self._end, :].clone()
            self._stored[..., : self.n_kept, :] = kept
            self._end = self.n_kept


class Layer(nn.Module):
    """Attention, then a feed-forward network."""

    def __init__(self, config: PriorConfig, number: int) -> None:
        super().__init__()
        width = config.channels
        self.n_heads, self.number = config.n_heads, number
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.projected = nn.Linear(width, 3 * width, bias=False)
        self.mixed = nn.Linear(width, width, bias=False)
        self.feed_forward_norm = nn.LayerNorm(width, bias=False)
        self.widened = nn.Linear(width, 4 * width, bias=False)
        self.narrowed = nn.Linear(4 * width, width, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, rotation: Tensor, mask: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """Input (B, N, C) -> the next layer's input; the other arguments are CodeTransformer's."""
        parts = self.projected(self.attention_norm(x)).unflatten(-1, (3, self.n_heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = _rotated(query, rotation), _rotated(key, rotation)
        if cache is not None:
            key, value = cache.extend(self.number, torch.stack([key, value]))
        heard = F.scaled_dot_product_attention(query, key, value, mask)
        x = x + self.dropout(self.mixed(heard.transpose(1, 2).flatten(2)))
        widened = F.gelu(self.widened(self.feed_forward_norm(x)))
        return x + self.dropout(self.narrowed(widened))


class CodeTransformer(nn.Module):
    """Distribution of every next code given the codes before and the speaker.

    Input and output share their embeddings. The speaker vector is projected and added to every
    input; a vector of zeros is nobody in particular.
    """

    def __init__(self, config: PriorConfig, codebook_size: int) -> None:
        super().__init__()
        self.config, self.codebook_size = config, codebook_size
        width = config.channels
        self.embedding = nn.Embedding(codebook_size + 1, width)
        self.speaker = nn.Linear(SPEAKER_DIM, width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(Layer(config, number) for number in range(config.n_layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # The sum over all branches is to begin no larger than one of them.
                ends_branch = name.endswith(("mixed.weight", "narrowed.weight"))
                n_summed = 2 * config.n_layers if ends_branch else 1
                nn.init.normal_(parameter, std=INIT_STD / math.sqrt(n_summed))
        nn.init.normal_(self.embedding.weight, std=self._embedding_std)

    @torch.no_grad()
    def start_from(self, latents: Tensor) -> None:
        """Begin with embeddings that are alike where codes are: latents (K, D), projected.

        The projection is random. Little data says little of a rare code; its neighbours say more.
        """
        deviation, mean = torch.std_mean(latents, dim=0)
        alike = (latents - mean) / deviation.clamp(min=1e-5)
        projection = torch.randn(latents.shape[1], self.config.channels).to(latents)
        projection *= self._embedding_std / math.sqrt(latents.shape[1])
        self.embedding.weight[: self.codebook_size] = alike @ projection

    @property
    def _embedding_std(self) -> float:
        # The last normalisation gives vectors of length sqrt(C).
        return LOGIT_STD / math.sqrt(self.config.channels)

    @property
    def begin(self) -> int:
        """The input before the first code of a recording."""
        return self.codebook_size

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.embedding.weight.device

    def cache(self, batch_size: int = 1) -> Cache:
        """What `forward` keeps of a sequence that is given to it in pieces."""
        return Cache(self.config, batch_size, self.device)

    def forward(self, previous: Tensor, speaker: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits (B, N, K) of codes given, for each, the code before it.

        A sequence may be given at once, or in pieces with a cache: the logits are the same.

        Args:
            previous: (B, N) int64: `begin` and then the codes, one step late; with a cache N is at
                most `config.context`.
            speaker: (B, 64).
            cache: of the pieces before; it is changed.
        """
        n_codes = previous.shape[1]
        position, n_kept = (cache.position, cache.n_kept) if cache else (0, 0)
        rotation, mask = self._rotation(position, n_codes), self._mask(n_kept, n_codes)
        x = self.dropout(self.embedding(previous) + self.speaker(speaker)[:, None])
        for layer in self.layers:
            x = layer(x, rotation, mask, cache)
        if cache:
            cache.advance(n_codes)
        return F.linear(self.norm(x), self.embedding.weight[: self.codebook_size])

    @torch.no_grad()
    def bits(self, codes: Tensor, speaker: Tensor) -> Tensor:
        """Information of every code of a recording, of any length in bounded memory.

        For codes (N,) int64 and a speaker (64,), the result is (N,) float32: -log2 of the
        probability of each code given those before it.
        """
        previous = torch.cat([codes.new_tensor([self.begin]), codes[:-1]])
        cache, length = self.cache(), self.config.context
        nats = [
            F.cross_entropy(
                self(piece[None], speaker[None], cache)[0].float(), target, reduction="none"
            )
            for piece, target in zip(previous.split(length), codes.split(length), strict=True)
        ]
        return torch.cat(nats) / math.log(2)

    def _mask(self, n_kept: int, n_codes: int) -> Tensor | None:
        """(N, P + N) which of the P kept and N new codes each new one attends to; all when None."""
        if n_codes == 1:
            return None
        key = torch.arange(n_kept + n_codes, device=self.device)
        distance = key[n_kept:, None] - key
        return (distance >= 0) & (distance < self.config.context)

    def _rotation(self, position: int, n_codes: int) -> Tensor:
        """(N, C / heads / 2) complex: how the channel pairs of a query or key are turned.

        Only differences of positions matter, and in double precision their angles stay exact
        however far a sequence goes on.
        """
        half = self.config.channels // self.config.n_heads // 2
        pair = torch.arange(half, device=self.device, dtype=torch.float64)
        positions = torch.arange(position, position + n_codes, device=self.device)
        angles = positions[:, None] * LONGEST_PERIOD ** (-pair / half)
        return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def _rotated(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs of channels of x (B, heads, N, C / heads)."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)
