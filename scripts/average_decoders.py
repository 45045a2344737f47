r"""Average the fast decoders of models that read the same codes: better than any one of them.

python scripts/average_decoders.py speech-1k runs/a/model.safetensors runs/b/model.safetensors \
        -o runs/mean.safetensors

Trainings that began from one model end in one valley, whose middle is lower than its sides (model
soups, Wortsman et al. 2022, arXiv 2203.05482). All else is the first model's. A model that is
named twice counts twice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from vqcodec import checkpoint


def main() -> None:
    """Write the model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", help="names of packaged models or model files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .safetensors file")
    arguments = parser.parse_args()
    loaded = [checkpoint.load(name) for name in arguments.models]
    first = loaded[0]
    for name, one in zip(arguments.models, loaded, strict=True):
        if one.fingerprint != first.fingerprint:
            raise SystemExit(f"{name}: its codes are not those of {arguments.models[0]}")
        if one.model.fast is None:
            raise SystemExit(f"{name}: has no fast decoder")
    decoders = [one.model.fast.state_dict() for one in loaded if one.model.fast is not None]
    mean = {name: torch.stack([each[name] for each in decoders]).mean(0) for name in decoders[0]}
    assert first.model.fast is not None
    first.model.fast.load_state_dict(mean)
    provenance = {**first.provenance, "averaged": arguments.models}
    checkpoint.save(arguments.output, first.model, first.voices, provenance, first.tables)


if __name__ == "__main__":
    main()
