"""Sources as other programs write them, and what is kept of what they tell."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import Run, is_one_line
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from recordings import RATE, spoken, write
from scale_data import (
    CLIPS,
    audio_folder,
    codec_of,
    job_of,
    make,
    members_of,
    rows_of,
    sound_bytes,
    tar_of,
)

from vqcodec.audio.writing import to_int16
from vqcodec.codec import Codec
from vqcodec.errors import DataError, VqcodecError
from vqcodec.format.codes import Codes
from vqcodec.scale.listing import Part, list_source
from vqcodec.scale.part_reading import read_part
from vqcodec.scale.records import Record
from vqcodec.scale.utterances import told_split
from vqcodec.scale.work import Job, _loaded

SAID = spoken("slt", 0.0, 2.0)


def encoded(source: Path | str, model: Path, sink: Path, **options: Any) -> list[dict[str, Any]]:
    listing = list_source(str(source), 2)
    make(job_of(model, sink, listing, **options), listing)
    return rows_of(sink)


def codes_of(model: Path, samples: np.ndarray) -> list[int]:
    # As the files have them.
    rounded = np.round(samples * 32768).clip(-32768, 32767).astype(np.int16)
    return codec_of(model).encode(rounded, RATE).codes[0].tolist()


def test_a_csv_keeps_its_columns(packaged: Path, tmp_path: Path) -> None:
    write(tmp_path / "wavs" / "1.wav", SAID)
    (tmp_path / "list.csv").write_text(
        "path,speaker,text,accent,duration\nwavs/1.wav,anna,hello,scots,2.0\n", encoding="utf-8-sig"
    )
    (row,) = encoded(tmp_path / "list.csv", packaged, tmp_path / "out")
    assert (row["name"], row["speaker"], row["text"]) == ("wavs/1", "anna", "hello")
    assert (row["accent"], row["source_duration"], row["duration"]) == ("scots", "2.0", 2.0)
    assert row["codes"] == codes_of(packaged, SAID)


def test_a_manifest_of_nemo_names_segments(packaged: Path, tmp_path: Path) -> None:
    write(tmp_path / "long.wav", SAID)
    lines = [
        {"audio_filepath": "long.wav", "offset": 0.5, "duration": 1.0, "text": "a", "n": 1},
        {"audio_filepath": "long.wav", "offset": 1.5, "duration": 0.5, "text": "b", "n": 2.5},
        {"audio_filepath": "long.wav", "offset": 1.2, "duration": 1.0, "text": "c", "n": 3},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    first, second = encoded(tmp_path / "m.jsonl", packaged, tmp_path / "out")
    assert (first["name"], second["name"]) == ("long-0.500", "long-1.500")
    assert (first["duration"], first["n"], second["n"]) == (1.0, 1.0, 2.5)
    assert first["codes"] == codes_of(packaged, SAID[8000:24000])
    (error,) = (tmp_path / "out/vqcodec/errors.jsonl").read_text().splitlines()
    assert "not all of the 1.000 s from 1.200 s on" in error


def test_a_list_of_fairseq(packaged: Path, tmp_path: Path) -> None:
    write(tmp_path / "wavs" / "deep" / "1.wav", SAID)
    (tmp_path / "train.tsv").write_text(f"{tmp_path}/wavs\ndeep/1.wav\t32000\n")
    (row,) = encoded(tmp_path / "train.tsv", packaged, tmp_path / "out")
    assert (row["name"], row["n_frames"]) == ("deep/1", 32000)
    assert row["codes"] == codes_of(packaged, SAID)


def test_cuts_of_lhotse_stay_what_they_are(packaged: Path, tmp_path: Path) -> None:
    stereo = np.stack([SAID, spoken("rms", 0.5, 2.5)], axis=1)
    recording = Recording.from_file(write(tmp_path / "two.wav", stereo))
    cuts = []
    for channel in (0, 1):
        said = SupervisionSegment(
            f"s{channel}", recording.id, 0, 1.2, channel, text="so", speaker="anna"
        )
        cut = MonoCut(f"c.{channel}", 0.25, 1.2, channel, [said], recording=recording)
        cut.snr = 9.5
        cuts.append(cut)
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts.jsonl.gz")
    rows = encoded(tmp_path / "cuts.jsonl.gz", packaged, tmp_path / "out")
    for row, cut in zip(rows, cuts, strict=True):
        assert (row["name"], row["speaker"], row["text"]) == (cut.id, "anna", "so")
        assert row["codes"] == codes_of(packaged, stereo[4000:23200, cut.channel])
    encoded(tmp_path / "cuts.jsonl.gz", packaged, tmp_path / "shar", to="lhotse")
    back = list(CutSet.from_shar(in_dir=tmp_path / "shar" / "data"))
    for row, cut, own in zip(rows, cuts, back, strict=True):
        assert own.load_codes().tolist() == row["codes"]
        assert (own.snr, own.supervisions, own.start) == (9.5, cut.supervisions, 0.25)
        np.testing.assert_array_equal(own.load_audio(), cut.load_audio())


def test_tables_of_hugging_face(packaged: Path, tmp_path: Path) -> None:
    import datasets

    rows = [
        {"audio": {"bytes": sound_bytes(samples), "path": f"{name.replace('/', '_')}.flac"},
         "sentence": f"this is {name}", "speaker_id": number, "age": number / 2, "codes": "theirs"}
        for number, (name, samples) in enumerate(CLIPS.items())
    ]  # fmt: skip
    rows[3]["audio"]["bytes"] = b"no audio"
    table = datasets.Dataset.from_list(rows)
    table = table.cast_column("audio", datasets.Audio(decode=False))
    table.to_parquet(tmp_path / "pq" / "train-00000-of-00001.parquet", batch_size=3)
    table.save_to_disk(tmp_path / "disk")
    found = encoded(tmp_path / "pq", packaged, tmp_path / "out")
    assert {row.pop("split") for row in found} == {"train"}
    assert found == encoded(tmp_path / "disk", packaged, tmp_path / "other")
    assert len(found) == len(CLIPS) - 1
    name, samples = next(iter(CLIPS.items()))
    assert (found[0]["name"], found[0]["text"]) == ("anna_a.0", f"this is {name}")
    assert (found[1]["speaker"], found[1]["age"], found[1]["source_codes"]) == ("1", 0.5, "theirs")
    assert found[0]["codes"] == codes_of(packaged, samples)
    # What is made is a table in its turn, with the model in its metadata.
    schema = pq.read_schema(tmp_path / "out" / "data" / "000000.parquet")
    assert schema.field("codes").type == pa.list_(pa.uint16())
    assert schema.field("age").type == pa.float64()
    assert schema.metadata[b"fingerprint"].decode() == codec_of(packaged).fingerprint.hex()
    made = datasets.load_dataset("parquet", data_files=f"{tmp_path}/out/data/*.parquet")
    assert made["train"][0]["codes"] == found[0]["codes"]


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_paths_in_rows_are_relative_to_the_working_folder_as_in_datasets(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """Of those who list them, and not of those who read: workers have folders of their own."""
    here, table = tmp_path / "here", tmp_path / "table"
    right, wrong = list(CLIPS.values())[:2]
    for folder, samples in ((here, right), (table, wrong)):
        (folder / "wav").mkdir(parents=True)
        (folder / "wav" / "a.flac").write_bytes(sound_bytes(samples))
    paths = ["wav/a.flac", str(table / "wav" / "a.flac"), (table / "wav" / "a.flac").as_uri()]
    rows = pa.table({
        "name": ["relative", "absolute", "url"],
        "audio": [{"bytes": None, "path": path} for path in paths],
    }, schema=pa.schema({
        "name": pa.string(), "audio": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    }))  # fmt: skip
    if form == "parquet":
        pq.write_table(rows, table / "a.parquet")
    else:
        with pa.ipc.new_stream(table / "a.arrow", rows.schema) as file:
            file.write_table(rows)
    monkeypatch.chdir(here)
    listing = list_source(str(table / f"a.{form}"))
    monkeypatch.chdir(tmp_path)
    make(job_of(packaged, tmp_path / "out", listing), listing)
    found = {row["name"]: row["codes"] for row in rows_of(tmp_path / "out")}
    of_right, of_wrong = (codes_of(packaged, samples) for samples in (right, wrong))
    assert found == {"relative": of_right, "absolute": of_wrong, "url": of_wrong}
    monkeypatch.chdir(here)
    assert list_source(str(table / f"a.{form}")).digest == listing.digest


def test_shar_is_not_taken_for_shards_without_speakers(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", spoken("slt", 0.0, 0.4))
    (tmp_path / "shar").mkdir()
    CutSet.from_cuts([Recording.from_file(path).to_cut()]).to_shar(
        tmp_path / "shar", {"recording": "flac"}, verbose=False
    )
    with pytest.raises(DataError, match=r"shar: is Lhotse's Shar, whose archives do not tell who"):
        list_source(str(tmp_path / "shar"))
    assert len(list_source(str(tmp_path / "shar" / "recording.*.tar")).parts) == 1


def test_shards_keep_their_keys_and_what_was_there(packaged: Path, tmp_path: Path) -> None:
    import webdataset

    members = {}
    for name, samples in CLIPS.items():
        key = name.replace(".", "_")
        members |= {f"{key}.FLAC": sound_bytes(samples), f"{key}.txt": name.encode()}
        members |= {f"{key}.json": b'{"speaker": "x"}', f"{key}.seg.npy": bytes(3)}
    members |= {"without.txt": b"no sound"}
    tar_of(tmp_path / "in" / "a.tar", members)
    listing = list_source(f"{tmp_path}/in/*.tar")
    summary = make(job_of(packaged, tmp_path / "out", listing, "webdataset"), listing)
    assert (summary.n, summary.n_errors) == (len(CLIPS), 1)
    found = members_of(tmp_path / "out")
    del members["without.txt"]
    assert {name: data for name, data in found.items() if not name.endswith(".codes")} == members
    shards = sorted(map(str, tmp_path.glob("out/data/*.tar")))
    read = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(read) == len(CLIPS)
    for sample, samples in zip(read, CLIPS.values(), strict=True):
        assert Codes.from_bytes(sample["codes"]).codes[0].tolist() == codes_of(packaged, samples)
        assert sample["seg.npy"] == bytes(3)


def test_files_become_shards_whose_keys_have_no_dots(packaged: Path, tmp_path: Path) -> None:
    listing = list_source(str(audio_folder(tmp_path / "in")), 3)
    make(job_of(packaged, tmp_path / "out", listing, "webdataset"), listing)
    found = members_of(tmp_path / "out")
    flac = (tmp_path / "in" / "anna" / "a.1.flac").read_bytes()
    assert found["anna/a%2E1.flac"] == flac
    assert json.loads(found["anna/a%2E1.json"])["speaker"] == "anna"
    # And back, under their own names.
    codes = list_source(str(tmp_path / "out"))
    make(job_of(packaged, tmp_path / "back", codes, "folder", "sound"), codes)
    names = {str(path.relative_to(tmp_path / "back" / "data").with_suffix(""))
             for path in tmp_path.glob("back/data/*/*.flac")}  # fmt: skip
    assert names == set(CLIPS)


@pytest.mark.parametrize("to", ["parquet", "webdataset", "lhotse"])
def test_codes_become_sound_as_by_themselves(to: Any, packaged: Path, tmp_path: Path) -> None:
    import soundfile

    listing = list_source(str(audio_folder(tmp_path / "in")), 3)
    make(job_of(packaged, tmp_path / "out", listing, to), listing)
    codes = list_source(str(tmp_path / "out"))
    make(job_of(packaged, tmp_path / "back", codes, "parquet", "sound", speaker="p225"), codes)
    codec = codec_of(packaged)
    rows = rows_of(tmp_path / "back")
    assert [row["name"] for row in rows] == list(CLIPS)
    for row in rows:
        with pa.BufferReader(row["audio"]["bytes"]) as file:
            sound, _ = soundfile.read(file, dtype="float32")
        own = codec.decode(codec.encode(f"{tmp_path}/in/{row['name']}.flac"), speaker="p225")
        np.testing.assert_allclose(sound, np.clip(own, -1, 1), atol=1 / 32768)
        np.testing.assert_array_equal(sound * 32768, to_int16(own))  # as `vqcodec decode` writes
        assert row["speaker"] == row["name"].split("/")[0]


def test_of_recordings_with_one_name_none_is_lost_in_silence(
    packaged: Path, tmp_path: Path
) -> None:
    for file in ("a", "b"):
        row = {"audio": sound_bytes(SAID), "name": "same"}
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{file}.parquet")
    listing = list_source(str(tmp_path))
    assert make(job_of(packaged, tmp_path / "out", listing), listing).n == 2
    codes = list_source(str(tmp_path / "out"))
    with pytest.raises(VqcodecError, match=r"1 recordings have the names of others.*with --to"):
        make(job_of(packaged, tmp_path / "back", codes, "folder", "sound"), codes)
    assert make(job_of(packaged, tmp_path / "new", codes, "webdataset", "sound"), codes).n == 2


def test_the_first_shard_does_not_speak_for_all(packaged: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar").write_bytes(b"no archive")
    tar_of(tmp_path / "in" / "b.tar", {"0.flac": sound_bytes(SAID)})
    listing = list_source(str(tmp_path / "in"))
    made = make(job_of(packaged, tmp_path / "out", listing, "webdataset"), listing)
    assert (made.n, made.n_errors) == (1, 1)
    codes = list_source(str(tmp_path / "out"))  # whose first shard is empty
    assert make(job_of(packaged, tmp_path / "back", codes, "folder", "sound"), codes).n == 1


def test_a_row_without_sound_is_told(packaged: Path, tmp_path: Path) -> None:
    rows = [{"audio": sound_bytes(SAID), "n": 1}, {"audio": None, "n": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    listing = list_source(str(tmp_path / "a.parquet"))
    summary = make(job_of(packaged, tmp_path / "out", listing), listing)
    assert (summary.n, summary.n_errors) == (1, 1)
    assert "neither bytes nor a path" in (tmp_path / "out/vqcodec/errors.jsonl").read_text()


@pytest.mark.parametrize("to", ["parquet", "webdataset", "lhotse"])
def test_what_files_are_named_for_is_kept(packaged: Path, tmp_path: Path, to: str) -> None:
    """Or a prior would be trained on the codes of the recordings for tests."""
    for name in ("train", "validation", "test"):
        rows = [{"name": name, "audio": sound_bytes(SAID)}]
        path = tmp_path / "in" / f"{name}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), path)
    listing = list_source(str(tmp_path / "in"))
    assert make(job_of(packaged, tmp_path / "out", listing, to), listing).n == 3
    found = {
        record.name: told_split(part, record)
        for part in list_source(str(tmp_path / "out")).parts
        for record in read_part(part)
    }
    assert found == {"train": "train", "validation": "valid", "test": "test"}


@pytest.mark.parametrize(
    "extra",
    [
        {"split": "dev"},
        {"members": {"json": b'{"split": "validation"}'}},
        {"members": [("txt", b"said"), ("json", b'{"split": "valid"}')]},
        {"cut": '{"custom": {"split": "dev"}}'},
        {"cut": '{"custom": {"extra": {"split": "dev"}}}'},
    ],
)
def test_what_a_recording_is_for_is_told_in_many_ways(extra: dict[str, Any]) -> None:
    part = Part("tar", [{"name": "test-0.tar", "url": ""}])
    assert told_split(part, Record("a", extra=extra)) == "valid"


@pytest.mark.parametrize("name", ["split", "members", "cut", "extra"])
@pytest.mark.parametrize("value", [None, 5, "no JSON", '"text"', [1], ["ab"], {"custom": 1}, b"ab"])
def test_columns_may_be_called_as_ours_are(name: str, value: object) -> None:
    part = Part("tar", [{"name": "test-0.tar", "url": ""}])
    assert told_split(part, Record("a", extra={name: value})) == "test"


def test_a_data_set_of_nothing_is_a_failure(run: Run, packaged: Path, tmp_path: Path) -> None:
    manifest, out = tmp_path / "m.csv", tmp_path / "out"
    manifest.write_text("path\nnone.wav\nneither.wav\n")
    result = run("encode-dataset", manifest, "-o", out, "--model", packaged, "--jobs", "1")
    assert (result.status, is_one_line(result)) == (1, True)
    assert f"could be made of any of 2 recordings; {out}/vqcodec/errors.jsonl" in result.stderr
    assert f"remove {out} to try again" in result.stderr


def test_a_result_lies_beside_its_source(run: Run, packaged: Path, tmp_path: Path) -> None:
    audio_folder(tmp_path)
    for sink in (tmp_path, tmp_path / "codes"):
        result = run("encode-dataset", f"{tmp_path}/", "-o", sink, "--model", packaged)
        assert (result.status, list(tmp_path.glob("codes"))) == (2, [])
        assert "name a folder beside it" in result.stderr


@pytest.mark.parametrize("to", ["parquet", "webdataset", "lhotse"])
def test_units_of_sound_and_of_codes_are_the_same(
    to: Any, run: Run, packaged: Path, tmp_path: Path
) -> None:
    audio_folder(tmp_path / "in")
    listing = list_source(f"{tmp_path}/in", 3)
    make(job_of(packaged, tmp_path / "codes", listing, to), listing)
    options = ["--to", "parquet", "--dedup", "--jobs", "1", "-q"]
    for source, sink in (("in", "a"), ("codes", "b")):
        model = ["--model", packaged] if source == "in" else []
        result = run("units", tmp_path / source, "-o", tmp_path / sink, *options, *model)
        assert result.status == 0, result.stderr
    rows = [[{key: row[key] for key in ("name", "speaker", "units", "durations")}
             for row in rows_of(tmp_path / sink)] for sink in "ab"]  # fmt: skip
    assert rows[0] == rows[1]
    codes = codec_of(packaged).encode(f"{tmp_path}/in/anna/a.0.flac").codes[0].tolist()
    assert np.repeat(rows[0][0]["units"], rows[0][0]["durations"]).tolist() == codes


def test_units_as_shards(run: Run, packaged: Path, tmp_path: Path) -> None:
    audio_folder(tmp_path / "in")
    for to in ("webdataset", "lhotse"):
        line = ["units", tmp_path / "in", "-o", tmp_path / to, "--to", to, "--jobs", "1"]
        assert run(*line, "--model", packaged).status == 0
    found = members_of(tmp_path / "webdataset")
    units = np.load(io.BytesIO(found["anna/a%2E0.units.npy"]))
    (cut, *_) = CutSet.from_shar(in_dir=tmp_path / "lhotse" / "data")
    assert cut.id == "anna/a.0"
    assert cut.load_units().tolist() == units.tolist()


def test_a_damaged_shard_is_told_and_the_others_are_made(packaged: Path, tmp_path: Path) -> None:
    clips = {
        f"{number}.flac": sound_bytes(samples) for number, samples in enumerate(CLIPS.values())
    }
    tar_of(tmp_path / "in" / "a.tar", clips)
    tar_of(tmp_path / "in" / "b.tar", clips)
    whole = (tmp_path / "in" / "a.tar").read_bytes()
    (tmp_path / "in" / "a.tar").write_bytes(whole[: len(whole) // 2])
    listing = list_source(str(tmp_path / "in"))
    summary = make(job_of(packaged, tmp_path / "out", listing), listing)
    assert (len(CLIPS) < summary.n < 2 * len(CLIPS), summary.n_errors) == (True, 1)
    assert "a.tar: is damaged" in (tmp_path / "out/vqcodec/errors.jsonl").read_text()


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "is not there, or holds no recordings"),
        ({"notes.txt": b"x"}, "is not there, or holds no recordings"),
        ({"a.wav": b"x", "b.tar": b"x"}, "holds both .tar and sound files; name one kind"),
        ({"a.parquet": b"x"}, "a.parquet: is no Parquet file"),
        ({"manifest.csv": b"speaker\nanna\n"}, "line 2: names no file"),
        ({"manifest.jsonl": b'{"path": "a.wav"}\n{"path"'}, "line 2: neither a recording"),
        ({"manifest.csv": b"path,offset\na.wav,1\n"}, "line 2: an offset is seconds, and needs"),
        ({"manifest.jsonl": b'{"path": "a", "offset": NaN, "duration": 1}'}, "line 1: an offset"),
        ({"manifest.jsonl": b'{"recording": {"sources": []}}'}, "line 1: neither a recording"),
        ({"manifest.csv": b"path\na.wav\na.wav\n"}, "2 recordings are called a; give them names"),
    ],
)  # fmt: skip
def test_faults_of_a_source(files: dict[str, bytes], told: str, tmp_path: Path) -> None:
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=told):
        list_source(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("in[1]", ["a*b", "ab", "c::d", "e?"]),
        ("in[1]/a*b.wav", ["a*b"]),
        ("in[1]/a*.wav", ["a*b", "ab"]),
        ("in*/*.wav", ["in[1]/a*b", "in[1]/ab", "in[1]/c::d", "in[1]/e?"]),
    ],
)
def test_a_star_of_a_name_stands_for_itself(
    source: str, names: list[str], packaged: Path, tmp_path: Path
) -> None:
    for name in ("a*b", "ab", "c::d", "e?"):
        write(tmp_path / "in[1]" / f"{name}.wav", SAID[: RATE // 2])
    rows = encoded(tmp_path / source, packaged, tmp_path / "out*[1]")
    assert [row["name"] for row in rows] == names


def test_workers_have_folders_of_their_own(
    run: Run, packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given by a relative path is found, and a voice before a file of its name."""

    def elsewhere(job: Job) -> Codec | None:
        monkeypatch.chdir("/")
        return _loaded(job)

    monkeypatch.setattr("vqcodec.scale.work._loaded", elsewhere)
    write(tmp_path / "in" / "a.wav", SAID)
    (tmp_path / "p225").write_bytes(b"no audio")
    for command, source, sink, *more in (
        ("encode-dataset", "in", "codes"),
        ("decode-dataset", "codes", "heard", "--speaker", "in/a.wav"),
        ("decode-dataset", "codes", "named", "--speaker", "p225"),
    ):
        monkeypatch.chdir(tmp_path)
        model = ["--model", os.path.relpath(packaged)]
        result = run(command, source, "-o", sink, "--jobs", "1", *model, *more)
        assert (result.status, result.stdout) == (0, f"1 recordings, 2.0 s → {sink}\n")


def test_a_table_of_common_voice_is_no_list_of_fairseq(tmp_path: Path) -> None:
    (tmp_path / "train.tsv").write_text("client_id\tpath\nanna\ta.mp3\n")
    with pytest.raises(DataError, match="does not begin with a folder"):
        list_source(str(tmp_path / "train.tsv"))


def test_names_stay_in_the_folder(packaged: Path, tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_pylist([{"audio": sound_bytes(SAID), "name": "../../out"}]),
        tmp_path / "a.parquet",
    )
    listing = list_source(str(tmp_path / "a.parquet"))
    assert make(job_of(packaged, tmp_path / "out", listing), listing).n_errors == 1
