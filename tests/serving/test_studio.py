"""What the buttons of the studio do, without a browser."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from recordings import RATE, spoken, write

pytest.importorskip("gradio")
import gradio as gr

import vqcodec
from vqcodec.format.codes import Codes
from vqcodec.serving import pictures
from vqcodec.serving.sessions import CancelledError, Sessions
from vqcodec.serving.studio import Desk, Studio

VISITOR = SimpleNamespace(session_hash="visitor")


def quiet(share: float, desc: str) -> None:
    assert 0 <= share <= 1
    assert desc in ("encoding", "decoding")


@pytest.fixture(scope="module")
def codec(tiny_model: Path) -> vqcodec.Codec:
    return vqcodec.load(tiny_model, device="cpu", voices=False)


@pytest.fixture
def studio(codec: vqcodec.Codec, tmp_path: Path) -> Studio:
    return Studio(codec, tmp_path / "studio", max_seconds=3.0)


@pytest.fixture
def desk(studio: Studio, clip: Path) -> Desk:
    return studio.encode(str(clip), Desk(), VISITOR, quiet)[0]


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT", "PCM_U8", "DOUBLE"])
def test_a_file_of_any_kind_gives_the_codes_of_the_command_line(
    studio: Studio, codec: vqcodec.Codec, tmp_path: Path, subtype: str
) -> None:
    # Quiet, so that another full scale would be another gain.
    path = write(tmp_path / "in.wav", spoken("slt", 0.3, 0.8) * 0.1, RATE, subtype)
    handed = gr.Audio(type="filepath").preprocess(
        gr.data_classes.FileData(path=str(path), orig_name="in.wav")
    )
    desk, drawn, described, button = studio.encode(handed, Desk(), VISITOR, quiet)
    assert desk.codes == codec.encode(path)
    assert desk.codes.gain == codec.encode(path).gain
    assert drawn.startswith("<svg ")
    assert f"{len(desk.codes.to_bytes())} bytes; 63 codes of 9 bits" in described
    assert Codes.load(button["value"]) == desk.codes
    assert Path(button["value"]).name == "in.codes"


@pytest.mark.parametrize("voice", ["", "anna"])
def test_what_is_heard_is_the_file_of_the_command_line(
    studio: Studio, desk: Desk, codec: vqcodec.Codec, tmp_path: Path, voice: str
) -> None:
    path, drawn, button = studio.decode(desk, voice, "fast", 0, VISITOR, quiet)
    target = tmp_path / "out.wav"
    codec.decode_to(target, desk.codes, speaker=codec.voices[voice] if voice else None)
    given = gr.Audio(type="filepath").postprocess(path)
    assert given.path == path == button["value"]  # as it is, at no other level
    assert Path(path).read_bytes() == target.read_bytes()
    assert soundfile.info(path).subtype == "PCM_16"
    assert "codes" not in drawn


def test_the_pitch_is_shifted_where_codes_tell_one(
    studio: Studio, desk: Desk, clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(gr.Error, match="pitch"):
        studio.decode(desk, "", "fast", 2, VISITOR, quiet)
    codec = vqcodec.load("speech-1k", device="cpu", voices=False)
    studio = Studio(codec, tmp_path / "studio", max_seconds=3.0)
    desk, *_ = studio.encode(str(clip), Desk(), VISITOR, quiet)
    path, *_ = studio.decode(desk, "", "fast", 2, VISITOR, quiet)
    assert Path(path).name == "clip.fast.+2.wav"
    codec.decode_to(tmp_path / "out.wav", desk.codes, decoder="fast", pitch=2.0)
    assert Path(path).read_bytes() == (tmp_path / "out.wav").read_bytes()


def test_a_code_file_is_opened(studio: Studio, desk: Desk, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.codes"
    desk.codes.save(path)
    opened, drawn, *_ = studio.open(str(path), Desk(), VISITOR)
    assert (opened.name, opened.codes) == ("mine", desk.codes)
    assert "codes" in drawn
    assert "wave" not in drawn


@pytest.mark.parametrize(
    ("file", "error"),
    [
        ("notes.wav", r"^notes\.wav: is not audio"),
        ("nan.wav", r"^nan\.wav: the sample at 0\.000 s is nan"),
        ("long.wav", r"^long\.wav: lasts 4 s, and 3 s are taken; cut it$"),
        ("other.codes", r"^these codes were made by model"),
        ("long.codes", r"lasts 4 s, and 3 s are taken"),
        ("notes.codes", r"^notes\.codes: "),
    ],
)
def test_a_wrong_file_is_told_in_a_line(
    studio: Studio, codec: vqcodec.Codec, tmp_path: Path, file: str, error: str
) -> None:
    (tmp_path / "notes.wav").write_text("no recording")
    (tmp_path / "notes.codes").write_text("no codes")
    write(tmp_path / "nan.wav", np.full(8000, np.nan, np.float32), RATE, "FLOAT")
    long = write(tmp_path / "long.wav", spoken("rms", 0.0, 4.0))
    codes = codec.encode(long)
    codes.save(tmp_path / "long.codes")
    replace(codes, fingerprint=bytes(8)).save(tmp_path / "other.codes")
    path = str(tmp_path / file)
    load = studio.open if file.endswith(".codes") else partial(studio.encode, progress=quiet)
    with pytest.raises(gr.Error) as told:
        load(path, Desk(), VISITOR)
    assert re.search(error, told.value.message)
    assert str(tmp_path) not in told.value.message


def test_before_there_are_codes_nothing_is_heard(studio: Studio) -> None:
    with pytest.raises(gr.Error, match="nothing to hear yet"):
        studio.decode(Desk(), "", "fast", 0, VISITOR, quiet)
    assert studio.encode(None, Desk(), VISITOR, quiet)[1:3] == ("", "")


def test_an_enrolled_voice_is_its_visitors_alone(
    studio: Studio, desk: Desk, codec: vqcodec.Codec, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(gr, "Warning", warned.append)
    known = [*codec.voices]
    mine, choice = studio.enroll(str(speech), " bea ", desk, VISITOR)
    assert "has only 1." in warned[0]
    assert choice["value"] == "bea"
    shown = {name: text for text, name in studio.choices(mine)}
    assert " Hz, " in shown["bea"]
    assert [*codec.voices] == known
    assert "bea" not in [name for _, name in studio.choices(Desk())]
    heard = [studio.decode(mine, voice, "fast", 0, VISITOR, quiet)[0] for voice in ("bea", "anna")]
    assert Path(heard[0]).name == "clip.bea.fast.wav"
    assert Path(heard[0]).read_bytes() != Path(heard[1]).read_bytes()
    for name in ("anna", "bea", "a/b", ""):
        with pytest.raises(gr.Error, match=r"is a voice already|cannot name a voice"):
            studio.enroll(str(speech), name, mine, VISITOR)
    with pytest.raises(gr.Error, match="no recording to enroll from"):
        studio.enroll(None, "cleo", mine, VISITOR)


def test_work_is_cancelled(studio: Studio, desk: Desk) -> None:
    shares: list[float] = []

    def cancelling(share: float, desc: str) -> None:
        shares.append(share)
        studio.cancel(VISITOR)

    for _ in range(2):
        with pytest.raises(gr.Error, match="Cancelled"):
            studio.decode(desk, "", "fast", 0, VISITOR, cancelling)
    assert shares == [0.0, 0.0]
    assert not list(studio.sessions.folder("visitor").glob("*.wav"))
    studio.cancel(SimpleNamespace(session_hash="another"))
    studio.decode(desk, "", "fast", 0, VISITOR, quiet)


def test_a_visitor_is_told_what_cannot_be_cancelled(
    studio: Studio, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    numba = pytest.importorskip("numba")
    told: list[str] = []
    monkeypatch.setattr(studio.codec, "decode_to", lambda *_, **__: numba.njit(lambda: 1)())
    for decoder in ("fast", "wavenet"):
        with pytest.raises(gr.Error, match="cannot be opened"):
            studio.decode(desk, "", decoder, 0, VISITOR, lambda share, desc: told.append(desc))
    fast, wavenet, notice = told
    assert fast == wavenet == "decoding"
    assert notice.startswith("compiling the sampler, once")


def test_files_go_with_the_last_who_has_them(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "studio")
    shared, own = tmp_path / "shared.wav", tmp_path / "own.wav"
    for path in (shared, own):
        path.touch()
    for session in ("a", "b"):
        sessions.keep(session, str(shared))
        (sessions.folder(session) / "result.wav").touch()
    sessions.keep("a", str(own))
    stop = sessions.begin("a")
    sessions.end("a")
    assert stop.is_set()
    assert (shared.exists(), own.exists()) == (True, False)
    assert [path.name for path in (tmp_path / "studio").iterdir()] == ["b"]
    sessions.end("b")
    assert not shared.exists()
    sessions.end("c")  # who had nothing
    shared.touch()
    with pytest.raises(CancelledError):
        sessions.keep("b", str(shared))  # whose turn comes too late
    assert not shared.exists()


def test_a_picture_shows_what_it_is_given() -> None:
    seconds = np.arange(RATE) / RATE
    tone = np.sin(2 * np.pi * 4000 * seconds).astype(np.float32)
    pixels: Any = pictures._spectrogram(tone)
    darkest = pixels.astype(int).sum(2).mean(1).argmin()
    assert darkest == pytest.approx(len(pixels) / 2, abs=2)  # of 8 kHz
    for samples in (tone, tone[:1], np.zeros(10, np.float32)):
        svg = pictures.picture(samples, np.array([[3, 3, 2000]]), 1.0)
        assert "nan" not in svg
    assert pictures.picture(None, None, 1.0).count("<image") == 0
    assert pictures.picture(np.zeros(600 * RATE, np.float32), None, 600.0).count(",") < 10_000
