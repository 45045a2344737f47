"""Codecs that users bring, as commands and as Python functions; those of the documentation run."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import ROOT
from recordings import spoken

from vqcodec.errors import VqcodecError
from vqcodec.evaluation.baselines import ExternalCodec, baseline, external_codec
from vqcodec.evaluation.quality import SAMPLE_RATE as RATE

PAGE = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
HALVED = """
def halved(waveform):
    return waveform / 2, 7
def stereo(waveform):
    return waveform[None].repeat(2, 0), 7
def broken(waveform):
    return waveform * float("nan"), 7
def single(waveform):
    return waveform
def unknown(waveform):
    return waveform, None
"""


@pytest.fixture(scope="module")
def waveform() -> np.ndarray:
    return spoken("slt", 0.2, 1.2)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "my codec.py"
    path.write_text(HALVED)
    return path


def test_a_command_writes_what_is_measured_and_the_bits_that_count(waveform: np.ndarray) -> None:
    command = "head -c 100 {input} > {bits}; cp {input} {output}"
    codec = baseline(f" copy = {command} ")
    assert codec == ExternalCodec("copy", command)
    coded = codec(waveform)
    assert coded.n_bytes == 100
    np.testing.assert_allclose(coded.waveform, waveform, atol=2**-15)
    assert codec.digest() == command


def test_without_a_file_of_bits_their_number_is_unknown(waveform: np.ndarray) -> None:
    assert external_codec("copy=cp {input} {output}")(waveform).n_bytes is None


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        ("echo oh no >&2; false {input} {output}", "ends with status 1: oh no"),
        ("test {input} -o {output}", "writes no {output}"),
        ("cp {input} {output}; test -n {bits}", "writes no {bits}"),
    ],
)
def test_a_command_that_fails_is_told_in_one_line(
    waveform: np.ndarray, command: str, fault: str
) -> None:
    with pytest.raises(VqcodecError) as caught:
        external_codec(f"mine={command}")(waveform)
    message = str(caught.value)
    assert message.startswith(f"codec mine: {fault}")
    assert message.endswith("; correct it, or leave it out")
    assert "\n" not in message


def test_a_function_codes_and_its_file_tells_it_from_others(
    waveform: np.ndarray, script: Path
) -> None:
    codec = baseline(f"half={script}:halved")
    coded = codec(waveform)
    np.testing.assert_array_equal(coded.waveform, waveform / 2)
    assert coded.n_bytes == 7
    assert external_codec(f"half={script}:unknown")(waveform).n_bytes is None
    before = codec.digest()
    script.write_text(HALVED + "\n")
    assert codec.digest() != before
    assert external_codec(f"half={script}:unknown").digest() != codec.digest()


def test_a_function_may_be_of_an_installed_module(waveform: np.ndarray) -> None:
    module = "vqcodec.evaluation.baselines"
    assert external_codec(f"telephone={module}:narrowband")(waveform).n_bytes == RATE


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        ("stereo", r"gives no waveform \(T,\), but an array of shape \(2, 16000\)"),
        ("broken", "gives samples that are NaN or infinite; correct it"),
        ("single", "TypeError: .*; correct it, or leave it out"),
    ],
)
def test_what_a_function_gives_is_checked(
    waveform: np.ndarray, script: Path, function: str, fault: str
) -> None:
    with pytest.raises(VqcodecError, match=f"^codec x: {fault}"):
        external_codec(f"x={script}:{function}")(waveform)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("x=cp {input}", "x=cp {input}: no codec; give NAME='COMMAND {input} {output}',"),
        ("x=cp {output}", "x=cp {output}: no codec"),
        ("=cp {input} {output}", "=cp {input} {output}: no codec"),
        ("a|b=cp {input} {output}", "a|b=cp {input} {output}: no codec"),
        ("x=none.py:f", "codec x: none.py cannot be imported (FileNotFoundError: "),
        ("x=no.such.module:f", "codec x: no.such.module cannot be imported (ModuleNotFound"),
        ("x=json:nothing", "codec x: "),
    ],
)
def test_what_is_no_codec_is_refused(text: str, fault: str) -> None:
    with pytest.raises(VqcodecError) as caught:
        external_codec(text)
    assert str(caught.value).startswith(fault)


# The examples of the documentation, with random weights


def example(title: str, folder: Path) -> Path:
    (block,) = re.findall(rf'^```python title="{title}"\n(.*?)^```', PAGE, flags=re.M | re.S)
    path = folder / title
    path.write_text(block, encoding="utf-8")
    return path


@pytest.mark.optional
def test_encodec_stands_in_the_table(
    waveform: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encodec = pytest.importorskip("encodec", reason="encodec is not installed")
    untrained = partial(encodec.EncodecModel.encodec_model_24khz, pretrained=False)
    monkeypatch.setattr(encodec.EncodecModel, "encodec_model_24khz", untrained)
    path = example("encodec_codec.py", tmp_path)
    coded = external_codec(f"EnCodec 1.5={path}:at_1_5")(waveform)
    assert len(coded.waveform) == len(waveform)
    assert coded.n_bytes is not None
    assert 8 * coded.n_bytes / (len(waveform) / RATE) == pytest.approx(1500, rel=0.03)


@pytest.mark.optional
def test_descript_audio_codec_stands_in_the_table(
    waveform: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dac = pytest.importorskip("dac", reason="descript-audio-codec is not installed")
    rates = {"encoder_rates": [2, 4, 5, 8], "decoder_rates": [8, 5, 4, 2]}
    small = dac.DAC(encoder_dim=8, decoder_dim=64, n_codebooks=12, sample_rate=RATE, **rates)
    torch.manual_seed(0)
    monkeypatch.setattr(dac.utils, "download", lambda model_type: model_type)
    monkeypatch.setattr(dac, "DAC", SimpleNamespace(load={"16khz": small}.__getitem__))
    path = example("dac_codec.py", tmp_path)
    coded = external_codec(f"DAC={path}:at_1")(waveform)
    assert len(coded.waveform) == pytest.approx(len(waveform), abs=RATE // 1000)
    assert coded.n_bytes is not None
    assert 8 * coded.n_bytes / (len(waveform) / RATE) == pytest.approx(1000, rel=0.03)
