"""The model card that goes to the hub with a model: all of it is told by the model's file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from vqcodec.files import file_digest
from vqcodec.models.config import ModelConfig
from vqcodec.weights.measures import best_first
from vqcodec.weights.registry import ModelHeader

# The hub's identifiers of licences, by what a provenance says.
LICENCES = {"CC BY 4.0": "cc-by-4.0", "CC0": "cc0-1.0", "MIT": "mit", "Apache 2.0": "apache-2.0"}
_CARD = """\
---
library_name: vqcodec
pipeline_tag: audio-to-audio
license: {licence_tag}
tags:
- vqcodec
- speech
- audio-codec
- voice-conversion
---

# {model}

A model of vqcodec, a neural speech codec and voice converter.

```python
import vqcodec

codec = vqcodec.load("{name}")
codes = codec.encode("in.wav")
```

| | |
|---|---|
{rows}

## Origin

{origin}
"""
_ORIGIN = ("licence", "attribution", "data", "hardware", "stage")


def model_card(header: ModelHeader, name: str) -> str:
    """The card of a model that goes to `hf://owner/name`, as the README.md of its repository.

    It is Markdown, whose first lines are what the hub reads: library, licence and tags.
    """
    licence = str(header.provenance.get("licence", ""))
    tags = [tag for words, tag in LICENCES.items() if words in licence]
    facts = {**_facts(header), **dict(_measures(header.provenance.get("metrics", {})))}
    told = [(key, header.provenance[key]) for key in _ORIGIN if header.provenance.get(key)]
    return _CARD.format(
        licence_tag=tags[0] if tags else "unknown",
        model=header.name,
        name=name,
        rows="\n".join(f"| {_cell(key)} | {_cell(value)} |" for key, value in facts.items()),
        origin="\n".join(f"- {key}: {_cell(value)}" for key, value in told)
        or "The file does not tell.",
    )


def _facts(header: ModelHeader) -> dict[str, str]:
    """What the model is, from its configuration."""
    config = ModelConfig.model_validate_json(header.config)
    quantizer, frame_rate = config.quantizer, config.sample_rate / config.hop_length
    bits = (quantizer.codebook_size - 1).bit_length() * quantizer.n_codebooks
    return {
        "sample rate": f"{config.sample_rate} Hz",
        "codes": f"{frame_rate:g} a second of {bits} bits ({frame_rate * bits:g} bit/s)",
        "codebook": f"{quantizer.n_codebooks} of {quantizer.codebook_size} ({quantizer.kind})",
        "decoders": ", ".join(best_first(config, header.provenance)),
        "voices": ", ".join(header.voices),
        "fingerprint": f"`{header.fingerprint.hex()}`, which code files name",
        f"SHA-256 of {header.path.name}": f"`{file_digest(header.path)}`",
    }


def _measures(metrics: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """Metrics by their names, those within others after the names of these."""
    for name, value in metrics.items() if isinstance(metrics, Mapping) else ():
        full = f"{above}{str(name).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _measures(value, f"{full}: ")
        else:
            yield full, str(value)


def _cell(value: object) -> str:
    """Text in a line of Markdown, where it makes no cell, line or tag of its own."""
    text = " ".join(str(value).split())
    for mark, harmless in (("|", "\\|"), ("<", "&lt;")):
        text = text.replace(mark, harmless)
    return text
