"""Reading what was made, by itself and by PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run
from scale_data import CLIPS, audio_folder, codec_of, job_of, make
from torch.utils.data import DataLoader

from vqcodec import datasets
from vqcodec.errors import DataError
from vqcodec.scale.listing import list_source


@pytest.fixture(scope="module", params=["parquet", "webdataset", "lhotse"])
def made(
    request: pytest.FixtureRequest, packaged: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("made")
    listing = list_source(str(audio_folder(root / "in")), 2)
    make(job_of(packaged, root / "out", listing, request.param), listing)
    return root


def test_codes_come_in_order_or_shuffled_or_in_shares(made: Path, packaged: Path) -> None:
    source, codec = str(made / "out"), codec_of(packaged)
    found = list(datasets.read(source))
    assert [one.name for one in found] == list(CLIPS)
    for one in found:
        codes = codec.encode(f"{made}/in/{one.name}.flac")
        assert one.codes == codes
        assert one.speaker == one.name.split("/")[0]
        np.testing.assert_array_equal(one.units, codes.codes[0])
    shares = [[one.name for one in datasets.read(source, seed=3, shard=shard, n_shards=3)]
              for shard in range(3)]  # fmt: skip
    assert sorted(name for share in shares for name in share) == sorted(CLIPS)
    assert [one.name for one in datasets.read(source, seed=3)] != list(CLIPS)
    for shard in (-1, 3):
        with pytest.raises(DataError, match=f"shard {shard} of 3: give one from 0 to 2"):
            datasets.read(source, shard=shard, n_shards=3)


def test_workers_of_a_loader_share_the_recordings(made: Path) -> None:
    loader: Any = DataLoader(
        datasets.torch_dataset(made / "out", seed=3), batch_size=None, num_workers=2
    )
    found = {one["name"]: one["units"] for one in loader}
    assert sorted(found) == sorted(CLIPS)
    for one in datasets.read(made / "out"):
        assert found[one.name].tolist() == one.units.tolist()


@pytest.mark.parametrize("to", ["parquet", "webdataset"])
def test_units_have_durations(to: str, run: Run, packaged: Path, tmp_path: Path) -> None:
    audio_folder(tmp_path / "in")
    line = ["units", tmp_path / "in", "-o", tmp_path / "out", "--to", to, "--dedup", "--jobs", "1"]
    assert run(*line, "--model", packaged).status == 0
    for one in datasets.read(str(tmp_path / "out")):
        codes = codec_of(packaged).encode(f"{tmp_path}/in/{one.name}.flac").codes[0]
        np.testing.assert_array_equal(np.repeat(one.units, one.durations), codes)
        assert (np.diff(one.units) != 0).all()


def test_sound_is_no_data_set_of_codes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither codes nor units; vqcodec encode-dataset"):
        datasets.read(str(audio_folder(tmp_path / "in")))
