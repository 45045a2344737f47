from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from recordings import SAID, said, spoken, write_corpus
from scipy.stats import entropy
from vqcodec_cli import display
from vqcodec_cli.main import main

import vqcodec
from vqcodec import Codec, Codes
from vqcodec.audio import load
from vqcodec.errors import AudioError
from vqcodec.evaluation import cache, comparison
from vqcodec.evaluation.quality import METRICS, Measured
from vqcodec.inference import code_search


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings by synthesizers, of voices that the tiny model has; one without a text."""
    clips = {
        # Of lengths of which DNSMOS hears one window.
        "b": ("p225", said(), "test", SAID),
        "a": ("anna", spoken("slt", 0.0, 1.2)),
    }
    return write_corpus(tmp_path_factory.mktemp("corpus"), clips)


def arguments(corpus: Path, tiny_model: Path, output: Path, *more: str) -> list[str]:
    baselines = [] if "--conversion" in more else ["--baselines", "narrowband"]
    options = ["--model", str(tiny_model), "-o", str(output), "--recognizer", "pocketsphinx"]
    return ["eval", str(corpus), *options, *baselines, *more]


@pytest.fixture(scope="module")
def measured(corpus: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of one run, measured in a process of its own."""
    output = tmp_path_factory.mktemp("reports") / "report"
    assert main(arguments(corpus, tiny_model, output, "--jobs", "1")) == 0
    return output


@pytest.fixture(scope="module")
def own_codes(corpus: Path, tiny_model: Path) -> dict[str, Codes]:
    """What the tiny model makes of the corpus, by name."""
    codec = vqcodec.load(tiny_model, device="cpu")
    return {name: codec.encode(corpus / f"{name}.wav") for name in "ab"}


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_codec_is_measured_on_every_file(measured: Path, own_codes: dict[str, Codes]) -> None:
    rows = table(measured / "quality.csv")
    assert [(row["file"], row["speaker"], row["codec"]) for row in rows] == [
        ("a", "anna", "original"),
        ("a", "anna", "vqcodec (fast)"),
        ("a", "anna", "narrowband"),
        ("b", "p225", "original"),
        ("b", "p225", "vqcodec (fast)"),
        ("b", "p225", "narrowband"),
    ]
    original, ours, narrowband = rows[3:]
    assert float(original["STOI"]) == pytest.approx(1)
    assert float(original["PESQ-WB"]) == pytest.approx(4.644, abs=1e-3)
    assert float(original["kbit/s"]) == 256
    assert float(ours["STOI"]) < float(narrowband["STOI"])  # random weights
    n_bits = 8 * len(own_codes["b"].to_bytes())
    assert float(ours["kbit/s"]) == pytest.approx(n_bits / float(ours["seconds"]) / 1000, rel=1e-5)
    assert int(original["word errors"]) <= 2 < int(ours["word errors"])
    assert {row["words"] for row in rows[3:]} == {"9"}
    assert rows[0]["word errors"] == ""
    assert rows[0]["undefined"] == "WER: the corpus does not tell what is said"


@pytest.mark.usefixtures("in_this_process")
def test_refined_codes_are_measured_beside_the_encoders_own(
    corpus: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_search, "STEPS", 5)
    options = ["--limit", "1", "--baselines", "", "--refine"]
    assert main(arguments(corpus, tiny_model, tmp_path, *options)) == 0
    rows = table(tmp_path / "quality.csv")
    labels = ["original", "vqcodec (fast)", "vqcodec (fast, refined)"]
    assert [row["codec"] for row in rows] == labels
    _, plain, refined = (float(row["STOI"]) for row in rows)
    assert refined != plain  # of random weights neither need be the better


def test_the_summary_has_means_and_says_what_they_are_over(
    measured: Path, own_codes: dict[str, Codes]
) -> None:
    rows, text = table(measured / "quality.csv"), (measured / "quality.md").read_text()
    assert "Split test: 2 files" in text
    counts = np.bincount(np.concatenate([one.codes[0] for one in own_codes.values()]))
    assert f"Codebook: perplexity {np.exp(entropy(counts)):.1f} of 512" in text
    lines = {line.split(" | ")[0]: line for line in text.splitlines()}
    mean = np.mean([float(row["PESQ-WB"]) for row in rows if row["codec"] == "narrowband"])
    assert f" {mean:.3f} " in lines["| narrowband"]
    assert "(1 of 2 files)" in lines["| original"]  # that have a text
    low, high = sorted(float(row["PESQ-WB"]) for row in rows if row["codec"] == "narrowband")
    assert f" {mean:.3f} [{low:.3f}, {high:.3f}] " in lines["| narrowband"]
    assert "Recogniser: pocketsphinx (pocketsphinx " in text
    assert " STOI † ↑ " in text
    assert "† of a kind with a loss" in text


def test_the_page_plays_what_it_links_to(measured: Path) -> None:
    text = (measured / "index.html").read_text()
    sources = [part.split('"')[0] for part in text.split('src="')[1:]]
    assert len(sources) == 1 + 2 * 3 * 2  # the plot; files, codecs, sound and image
    for source in sources:
        assert (measured / source).is_file(), source
    sounds = [soundfile.info(str(measured / source)) for source in sources if "wav" in source]
    assert {sound.samplerate for sound in sounds} == {16000}
    assert len({sound.frames for sound in sounds}) == 2  # aligned: as long as the original
    assert SAID in text


@pytest.mark.usefixtures("in_this_process")
def test_a_run_goes_on_and_gives_the_same_report(
    corpus: Path, tiny_model: Path, measured: Path, tmp_path: Path, capsys: Any
) -> None:
    names = ["quality.csv", "quality.md", "rate.png", "index.html"]
    before = {name: (measured / name).read_bytes() for name in names}
    kept = sorted((measured / "cache").iterdir())
    (stale,) = [path for path in kept if path.name.startswith("a_narrowband")]
    stale.unlink()
    times = {path: path.stat().st_mtime_ns for path in kept if path != stale}
    for name in names:
        (measured / name).unlink()

    assert main(arguments(corpus, tiny_model, measured)) == 0
    assert {name: (measured / name).read_bytes() for name in names} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert sorted((measured / "cache").iterdir()) == kept
    assert before["quality.md"].decode() in capsys.readouterr().out


@pytest.mark.usefixtures("in_this_process")
def test_conversions_of_refined_codes_are_others(
    corpus: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_search, "STEPS", 3)
    options = ["--conversion", "--speakers", "p225,anna"]
    found = []
    for more in ([], ["--refine"]):
        assert main(arguments(corpus, tiny_model, tmp_path, *options, *more)) == 0
        found.append(table(tmp_path / "conversion.csv"))
        assert ("refined codes" in (tmp_path / "conversion.md").read_text()) == bool(more)
    for plain, refined in zip(*found, strict=True):
        assert plain["to target"] != refined["to target"]
        assert plain["original to target"] == refined["original to target"]


@pytest.mark.usefixtures("in_this_process")
def test_every_ordered_pair_is_converted(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    options = ["--conversion", "--speakers", "p225,anna"]
    assert main(arguments(corpus, tiny_model, tmp_path, *options)) == 0
    rows = table(tmp_path / "conversion.csv")
    assert [(row["file"], row["source"], row["target"]) for row in rows] == [
        ("b", "p225", "anna"),
        ("a", "anna", "p225"),
    ]
    assert int(rows[0]["word errors of original"]) <= 2
    assert rows[1]["words"] == ""
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "cache").iterdir())]
    voices = {name: record["embedding"] for name, record in zip("ab", records[3::4], strict=True)}
    similarity = np.dot(voices["b"], voices["a"])
    assert float(rows[0]["original to target"]) == pytest.approx(similarity, abs=1e-5)

    text = (tmp_path / "conversion.md").read_text()
    header, _, *lines = (line for line in text.splitlines() if line.startswith("|"))
    cells = [dict(zip(header.split(" | "), line.split(" | "), strict=True)) for line in lines]
    assert [line["target"] for line in cells] == ["anna", "p225", "all"]
    for line, row in zip(cells, rows, strict=False):
        nearer = float(row["to target"]) > float(row["to source"])
        assert line["target > source"] == ("yes" if nearer else "no")
        assert line["nearer to target"] == f"{int(nearer)} of 1"


@pytest.mark.usefixtures("in_this_process")
def test_a_perfect_conversion_has_the_targets_voice_and_pitch_and_words(
    corpus: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sounds = {"anna": load(corpus / "a.wav", 16000), "p225": load(corpus / "b.wav", 16000)}
    asked = set()

    def decode(_: Codec, codes: Codes, *, speaker: str | None, **options: Any) -> np.ndarray:
        asked.add(options["decoder"])
        return np.zeros(16000, np.float32) if speaker is None else sounds[speaker]

    monkeypatch.setattr(Codec, "decode", decode)
    options = ["--conversion", "--speakers", "p225,anna", "--decoder", "wavenet"]
    assert main(arguments(corpus, tiny_model, tmp_path, *options)) == 0
    assert asked == {"wavenet"}
    row = table(tmp_path / "conversion.csv")[0]
    assert float(row["to target"]) == pytest.approx(1)
    assert row["to source"] == row["original to target"]
    assert abs(float(row["F0 correlation"])) < 0.5
    assert int(row["word errors"]) > 6 > int(row["word errors of original"])
    assert row["word errors of reconstruction"] == "9"


@pytest.mark.usefixtures("in_this_process")
def test_the_decoder_asked_for_decodes(
    corpus: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def decode(_: Codec, codes: Codes, **options: Any) -> np.ndarray:
        asked.append(options.get("decoder"))
        return np.zeros(16000, np.float32)

    monkeypatch.setattr(Codec, "decode", decode)
    scores = Measured({metric.name: 0.5 for metric in METRICS}, {})
    monkeypatch.setattr(comparison, "measure", lambda *_: scores)
    options = ["--decoder", "wavenet", "--limit", "1", "--baselines", ""]
    assert main(arguments(corpus, tiny_model, tmp_path, *options)) == 0
    assert asked == ["wavenet"]
    assert table(tmp_path / "quality.csv")[1]["codec"] == "vqcodec (wavenet)"


@pytest.mark.usefixtures("in_this_process")
def test_a_codec_of_the_users_own_stands_in_the_table(
    corpus: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def measure(reference: np.ndarray, decoded: np.ndarray) -> Measured:
        heard.append(np.abs(reference - decoded).max())
        return Measured({metric.name: 0.5 for metric in METRICS}, {})

    monkeypatch.setattr(comparison, "measure", measure)
    codecs = ["same=cp {input} {output}", "counted=cp {input} {output}; head -c 99 {input} >{bits}"]
    options = [word for codec in codecs for word in ("--baseline", codec)]
    command = arguments(corpus, tiny_model, tmp_path, "--limit", "1", *options)
    assert main(command) == 0
    rows = table(tmp_path / "quality.csv")[-2:]
    assert [row["codec"] for row in rows] == ["same", "counted"]
    bits_per_second = 8 * 99 / float(rows[1]["seconds"])
    assert rows[0]["kbit/s"] == ""
    assert float(rows[1]["kbit/s"]) == pytest.approx(bits_per_second / 1000, rel=1e-5)
    assert max(heard[-2:]) < 2**-14
    assert "| same | - | " in (tmp_path / "quality.md").read_text()
    assert main([word.replace("-c 99", "-c 50") for word in command]) == 0
    assert len(heard) == 6  # only what was changed is measured again


def test_a_log_has_a_line_now_and_then_with_what_is_waited_for(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0, 1, 2, 10, 32, 40, 62, 63])
    monkeypatch.setattr(display.time, "monotonic", lambda: next(clock))
    with display.progress_of_report("measuring") as tell:
        tell(cache.Progress(0, 0, "the weights"))
        for n_done, waiting_for in enumerate(("a, b", "b", "c", "d, e", "e", "")):
            tell(cache.Progress(n_done, 5, waiting_for))
    assert capsys.readouterr().err.splitlines() == [
        "waiting for the weights",
        "measuring: 0 of 5, at a, b",
        "measuring: 2 of 5, 1 min left, at c",
        "measuring: 4 of 5, 1 min left, at e",
        "measuring: 5 of 5",
    ]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--baselines", "opus-x"], 1, "opus-x: no such reference codec; use codec2-MODE"),
        (["--split", "valid"], 1, "no recording in split valid (2 in test); choose another split"),
        (["--model", "none"], 1, "none: no such model; give a .safetensors file or one of"),
        (["--conversion"], 1, "0 voices of the model have 6 recordings or more in split test"),
        (["--conversion", "--speakers", "anna"], 1, "a conversion needs two voices, not 1"),
        (["--conversion", "--speakers", "anna,eve"], 1, "eve: neither a voice nor a recording"),
        (["--speakers", "anna,p225"], 2, "--speakers goes with --conversion; see vqcodec eval"),
        (["--degrade", "dc,hall"], 1, "hall: no such condition; use noise-DB or babble-DB"),
        (["--conversion", "--degrade", "dc"], 2, "--degrade does not go with --conversion; see"),
        (["--conversion", "--baselines", ""], 2, "--baselines does not go with --conversion; see"),
        (["--conversion", "--baseline", "x=y"], 2, "--baseline does not go with --conversion; see"),
        (["--recognizer", "huge"], 1, "huge: no such recogniser; use pocketsphinx, a Whisper of"),
        (["--baseline", "original=cp {input} {output}"], 1, "original: names two codecs; give"),
        (["--baseline", "mine"], 1, "mine: no such reference codec; use codec2-MODE"),
        (["--baseline", "mine=x"], 1, "mine=x: no codec; give NAME='COMMAND {input} {output}'"),
    ],
)
def test_a_wrong_wish_is_refused_in_one_line(
    corpus: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: Any,
    options: list[str],
    status: int,
    message: str,
) -> None:
    assert main(arguments(corpus, tiny_model, tmp_path / "report", *options)) == status
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.count("\n") == 1
    assert not (tmp_path / "report").exists()


@pytest.mark.usefixtures("in_this_process")
def test_a_recording_that_cannot_be_read_is_named(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    (tmp_path / "manifest.csv").write_text("path,speaker,split\nbad.wav,anna,test\n")
    with pytest.raises(AudioError, match=r"bad\.wav: "):
        comparison.compare(
            tmp_path, tmp_path / "report", model=str(tiny_model), recognizer="pocketsphinx"
        )


def test_a_missing_library_is_told_before_anything_is_measured(
    corpus: Path, tiny_model: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def versions() -> dict[str, str]:
        raise cache.VqcodecError("pesq: not installed; pip install 'vqcodec[eval]'")

    monkeypatch.setattr(cache, "library_versions", versions)
    assert main(arguments(corpus, tiny_model, tmp_path)) == 1
    assert capsys.readouterr().err == "vqcodec: pesq: not installed; pip install 'vqcodec[eval]'\n"
