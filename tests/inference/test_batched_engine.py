"""Chunks of many recordings side by side are encoded as each by itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from recordings import spoken

from vqcodec.inference.encoding import DOUBT
from vqcodec.inference.engines import batched as batched_engine
from vqcodec.inference.engines.batched import BatchedEngine
from vqcodec.inference.engines.pytorch import TorchEngine
from vqcodec.weights import checkpoint, model_file
from vqcodec.weights.checkpoint import network
from vqcodec.weights.registry import packaged


@pytest.mark.parametrize("name", ["tiny", "speech-1k"])
def test_codes_are_those_of_chunks_by_themselves(name: str, tiny_model: Path) -> None:
    path = packaged().get(name, tiny_model)
    model = network(model_file.read(str(path)))
    alone, batched = TorchEngine(model), BatchedEngine(model, "cpu")
    sizes: list[int] = []
    encoded = batched._encoded
    batched._encoded = lambda data: (sizes.append(len(data)), encoded(data))[1]  # type: ignore[method-assign]
    speech = spoken("slt") / np.float32(0.5)
    hop_length = model.config.hop_length
    chunks = [speech[start * 1000 :][: n * hop_length] for start, n in
              enumerate((30, 64, 100, 200, 237, 300, 301, 360))]  # fmt: skip
    assert not any(len(chunk) % hop_length for chunk in chunks)
    with ThreadPoolExecutor(len(chunks)) as pool:
        found = list(pool.map(batched.encode_chunk, chunks))
    assert sum(sizes) > len(chunks)
    for chunk, own in zip(chunks, found, strict=True):
        expected = alone.encode_chunk(chunk)
        assert own.codes.shape == expected.codes.shape
        is_sure = expected.margins > DOUBT
        np.testing.assert_array_equal(own.codes[:, is_sure], expected.codes[:, is_sure])
        np.testing.assert_allclose(own.margins, expected.margins, atol=DOUBT)


def test_a_batch_is_bounded_however_many_wait(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(batched_engine.MOST_CODES, "cpu", 3 * 64)
    engine = BatchedEngine(checkpoint.load(tiny_model).model, "cpu")
    sizes: list[int] = []
    encoded = engine._encoded
    engine._encoded = lambda data: (sizes.append(len(data)), encoded(data))[1]  # type: ignore[method-assign]
    chunk = np.zeros(64 * engine.config.hop_length, np.float32)
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(engine.encode_chunk, [chunk] * 24))
    assert sum(sizes) == len(found) == 24
    assert max(sizes) <= 3


def test_a_fault_reaches_who_waits(tiny_model: Path) -> None:
    engine = BatchedEngine(checkpoint.load(tiny_model).model, "cpu")
    engine._encoded = lambda data: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    with pytest.raises(ZeroDivisionError):
        engine.encode_chunk(np.zeros(200 * engine.config.hop_length, np.float32))
