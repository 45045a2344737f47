r"""Average the fast decoders of models that read the same codes; judge the mean by evaluation.

python scripts/average_decoders.py speech-1k runs/a/model.safetensors runs/b/model.safetensors \
        -o runs/mean.safetensors

Trainings that began from one model may end in one valley, whose middle is lower than its sides
(model soups, Wortsman et al. 2022, arXiv 2203.05482). All else is the first model's. A model that
is named twice counts twice. With --moved-codes, models of other codes are taken too: those that one
training has moved a little from the other's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from vqcodec.errors import VqcodecError
from vqcodec.weights import checkpoint


def main() -> None:
    """Write the model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", help="names of packaged models or model files")
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .safetensors file")
    parser.add_argument("--moved-codes", action="store_true", help="let the codes differ")
    arguments = parser.parse_args()
    loaded = [checkpoint.load(name) for name in arguments.models]
    first, decoders = loaded[0], []
    for name, one in zip(arguments.models, loaded, strict=True):
        if one.fingerprint != first.fingerprint and not arguments.moved_codes:
            raise SystemExit(f"{name}: its codes are not those of {arguments.models[0]}")
        if one.model.fast is None or one.config.fast != first.config.fast:
            raise SystemExit(f"{name}: has no fast decoder of the shape of {arguments.models[0]}'s")
        decoders.append(one.model.fast)
    parts = [decoder.state_dict() for decoder in decoders]
    mean = {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}
    decoders[0].load_state_dict(mean)
    provenance = {**first.provenance, "averaged": arguments.models}
    checkpoint.save(arguments.output, first.model, first.voices, provenance, first.tables)


if __name__ == "__main__":
    try:
        main()
    except VqcodecError as error:
        raise SystemExit(f"average_decoders.py: {error}") from None
