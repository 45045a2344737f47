r"""Begin the WaveNet and the prior of a codec from those of the codec that it was trained from.

    python scripts/follow_codes.py wavenet speech-1k runs/new.safetensors -o runs/start.safetensors
    vqcodec train speech_1k_wavenet.yaml initial_model=runs/start.safetensors
    python scripts/follow_codes.py prior speech-1k runs/new.safetensors data/corpus \
        -o runs/prior_start.safetensors
    vqcodec train prior.yaml codec=runs/new.safetensors initial_prior=runs/prior_start.safetensors

Training a codec moves its codes a little, or gives it more of them, and both parts then have to
follow. The WaveNet hears the codes' vectors, which have moved a little too. What the prior knows of
a code is known of the old codes that stand in its place in the same recordings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer

import vqcodec
from vqcodec import prior
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import VqcodecError
from vqcodec.models.code_transformer import CodeTransformer
from vqcodec.models.vqvae import VQVAE
from vqcodec.weights import checkpoint, prior_checkpoint

OLD = Annotated[str, typer.Argument(help="The codec of before: a packaged model, or a model file.")]
NEW = Annotated[Path, typer.Argument(help="The codec that was trained from it.")]
OUTPUT = Annotated[Path, typer.Option("--output", "-o", help="The file to write.")]

app = typer.Typer(pretty_exceptions_enable=False)


@app.command()
def wavenet(old: OLD, new: NEW, output: OUTPUT) -> None:
    """Write the new codec with the old one's WaveNet."""
    before, after = checkpoint.load(old), checkpoint.load(new)
    both = VQVAE(after.config.model_copy(update={"wavenet": before.config.wavenet}))
    theirs = before.model.state_dict()
    parts = {name: value for name, value in theirs.items() if name.startswith("wavenet.")}
    both.load_state_dict(after.model.state_dict() | parts)
    checkpoint.save(output, both.eval(), after.voices, after.provenance, after.tables)


@app.command("prior")
def prior_of(
    old: OLD,
    new: NEW,
    data: Annotated[Path, typer.Argument(help="A prepared folder, of which a tenth is heard.")],
    output: OUTPUT,
) -> None:
    """Write a prior of the new codec, made from the old one's packaged prior."""
    before, after = vqcodec.load(old, device="cpu"), vqcodec.load(new, device="cpu")
    known = prior.load(before)
    sizes = [codec.config.quantizer.codebook_size for codec in (after, before)]
    together = np.zeros(sizes, np.int64)
    prepared = PreparedData(data)
    for clip in prepared.split("train")[::10]:
        audio = prepared.read(clip)
        pair = (codec.encode(audio, prepared.sample_rate).codes[0] for codec in (after, before))
        np.add.at(together, tuple(pair), 1)
    model = CodeTransformer(known.model.config, sizes[0])
    weights = known.model.state_dict()
    embeddings, begin = weights["embedding.weight"][:-1], weights["embedding.weight"][-1:]
    # A code that was never heard is like the mean of all.
    shares = F.normalize(torch.from_numpy(together).float() + 1e-6, p=1, dim=1)
    follows = shares @ embeddings
    # Means are shorter than what they are made of.
    follows *= (shares @ embeddings.norm(dim=1, keepdim=True)) / follows.norm(dim=1, keepdim=True)
    model.load_state_dict({**weights, "embedding.weight": torch.cat([follows, begin])})
    prior_checkpoint.save(
        output,
        model,
        together.sum(1),
        typical=known.typical,
        fingerprint=after.fingerprint,
        provenance={"begun_from": old},
    )


if __name__ == "__main__":
    try:
        app()
    except VqcodecError as error:
        raise SystemExit(f"follow_codes.py: {error}") from None
