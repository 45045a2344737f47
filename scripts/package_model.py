r"""Turn a trained model into a packaged one: choose its voices, record what it is made of.

python scripts/package_model.py runs/x/model.safetensors speech-1k \
        --voices p225,p226 --provenance provenance.json --train-data data/prepared

With --train-data, the entropy coder's tables are fitted to that data's training split, and with
--codes to refined codes of it, too, which the encoder's own say little about. With --wavenet, the
WaveNet is that of another model of the same codes: the decoders were trained apart.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqcodec.codec import Codec
from vqcodec.data.encoded import read_encoded
from vqcodec.data.prepared import PreparedData
from vqcodec.errors import VqcodecError
from vqcodec.format.ngram_coder import NgramModel
from vqcodec.inference.units import NOBODY
from vqcodec.training import ngram
from vqcodec.training.loop import keep_freed_memory
from vqcodec.weights import checkpoint

WEIGHTS = Path(__file__).parents[1] / "vqcodec" / "weights"
LARGEST_BYTES = 16_000_000


def main() -> None:
    """Write vqcodec/weights/NAME.safetensors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a model file")
    parser.add_argument("name", help="of the packaged model")
    parser.add_argument("--voices", required=True, help="names to keep, with commas between")
    parser.add_argument("--provenance", type=Path, required=True, help="JSON to add")
    parser.add_argument("--train-data", type=Path, help="a prepared folder")
    parser.add_argument("--codes", type=Path, help="a folder of refined codes of that data")
    parser.add_argument("--wavenet", help="a model file, whose WaveNet to take")
    arguments = parser.parse_args()
    if arguments.codes is not None and arguments.train_data is None:
        parser.error("--codes needs --train-data, whose recordings they are")
    loaded = checkpoint.load(arguments.model)
    if arguments.wavenet is not None:
        other = checkpoint.load(arguments.wavenet)
        if other.fingerprint != loaded.fingerprint:
            raise SystemExit(f"{arguments.wavenet}: its codes are not those of {arguments.model}")
        loaded.model.wavenet = other.model.wavenet
        wavenet = {"wavenet": other.config.wavenet}
        loaded.model.config = loaded.model.config.model_copy(update=wavenet)
    voices = {name: loaded.voices[name] for name in arguments.voices.split(",")}
    provenance = {**loaded.provenance, **json.loads(arguments.provenance.read_text())}
    tables = loaded.tables
    if arguments.train_data is not None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        codec, data = Codec(loaded, device=device), PreparedData(arguments.train_data)
        tables = fitted(codec, data, arguments.codes)
    target = WEIGHTS / f"{arguments.name}.safetensors"
    fingerprint = checkpoint.save(target, loaded.model, voices, without_folders(provenance), tables)
    size = target.stat().st_size
    print(f"{target}: {size} bytes, {len(voices)} voices, fingerprint {fingerprint.hex()}")
    if size > LARGEST_BYTES:
        raise SystemExit(f"{target}: over {LARGEST_BYTES} bytes, too large to package")


def without_folders(tree: Any) -> Any:
    """JSON whose paths are names alone: where they lay is the trainer's own affair."""
    if isinstance(tree, dict):
        return {key: without_folders(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_folders(value) for value in tree]
    return Path(tree).name if isinstance(tree, str) and Path(tree).is_absolute() else tree


def fitted(codec: Codec, data: PreparedData, refined: Path | None) -> NgramModel:
    """Tables for the codes of the training split, and for those in a folder of code files.

    Every recording is encoded twice, the second time from half a hop later on: other codes of the
    same speech, as a recording that begins there would have.

    Args:
        codec: whose codes they are.
        data: what was prepared for its training.
        refined: a folder as `read_encoded` takes it.

    Raises:
        VqcodecError: as `read_encoded` does, or there is nothing to fit to.
    """
    keep_freed_memory()
    half_hop = codec.hop_length * data.sample_rate // (2 * codec.sample_rate)
    sequences: list[np.ndarray] = [
        codec.encode(data.read(clip, start), data.sample_rate, speaker=NOBODY).codes
        for clip in data.split("train")
        for start in (0, half_hop)
        if start < clip.n_samples
    ]
    if refined is not None:
        encoded = read_encoded(refined, data, fingerprint=codec.fingerprint, tables=codec.tables)
        sequences += [encoded.codes[:, start:end] for start, end in encoded.places.values()]
    return ngram.fit(sequences, codec.config.quantizer.codebook_size, device=codec.device)


if __name__ == "__main__":
    try:
        main()
    except VqcodecError as error:
        raise SystemExit(f"package_model.py: {error}") from None
