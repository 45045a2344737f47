from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_data import prepare_speech

from vqcodec.audio import tracks
from vqcodec.data import stream_tracks
from vqcodec.data.prepared import PreparedData
from vqcodec.data.stream_tracks import load_tracks
from vqcodec.errors import DataError
from vqcodec.models.config import PitchConfig
from vqcodec.models.pitch import PitchStream

STREAMS = {"pitch": PitchStream(PitchConfig())}


@pytest.fixture
def data(tmp_path: Path) -> PreparedData:
    return prepare_speech(tmp_path)


def test_recordings_are_listened_to_once(
    data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="damaged; delete it"):
        load_tracks(data, STREAMS, 128, makes=False)
    first = load_tracks(data, STREAMS, 128)
    assert (data.root / "pitch_128.safetensors").is_file()
    for clip in data.clips:
        start, end = first.spans[clip.name]
        heard = STREAMS["pitch"].stored(tracks.TRACKERS["pitch"](data.read(clip), 128))
        assert np.array_equal(first.values["pitch"][start:end], heard)
        assert heard.any()
    monkeypatch.setitem(tracks.TRACKERS, "pitch", lambda *_: pytest.fail("listened again"))
    again = load_tracks(data, STREAMS, 128, makes=False)
    assert np.array_equal(again.values["pitch"], first.values["pitch"])


def test_tracks_of_other_audio_or_another_tracker_are_made_anew(
    data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_tracks(data, STREAMS, 128)
    silent = {"pitch": lambda waveform, hop: np.zeros(-(-len(waveform) // hop), np.float32)}
    monkeypatch.setattr(stream_tracks, "TRACKERS", silent)
    assert load_tracks(data, STREAMS, 128).values["pitch"].any()
    monkeypatch.setattr(stream_tracks, "VERSION", 2)
    assert not load_tracks(data, STREAMS, 128).values["pitch"].any()


def test_damaged_tracks_are_refused(data: PreparedData) -> None:
    load_tracks(data, STREAMS, 128)
    path = data.root / "pitch_128.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"pitch_128\.safetensors: damaged; delete it"):
        load_tracks(data, STREAMS, 128)
