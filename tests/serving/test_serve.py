"""The HTTP server: results are the command line's, errors one line of JSON, and it lets none in
beyond its limits."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Run
from recordings import spoken, write

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from vqcodec.serving.api import app
from vqcodec.serving.service import Service, told

MAX_BYTES = 200_000


@pytest.fixture(scope="module")
def service(tiny_model: Path) -> Service:
    return Service(str(tiny_model), voices=False, device="cpu", max_seconds=3.0)


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(app(service, max_open=2, max_bytes=MAX_BYTES)) as client:
        yield client


def sent(client: TestClient, what: str, file: Path, **fields: Any) -> Any:
    reference = fields.pop("reference", None)
    files = {"file": (file.name, file.read_bytes())}
    if reference:
        files["reference"] = (reference.name, reference.read_bytes())
    return client.post(f"/{what}", files=files, data=fields)


@pytest.mark.parametrize(
    ("what", "fields", "arguments", "result"),
    [
        ("encode", {}, ["encode", "clip.wav"], "u.codes"),
        ("encode", {"speaker": "anna"}, ["encode", "clip.wav", "--speaker", "anna"], "u.codes"),
        ("convert", {"speaker": "anna"}, ["convert", "clip.wav", "--speaker", "anna"], "u.wav"),
        (
            "convert",
            {"speaker": "p225", "decoder": "wavenet", "seed": 3, "sample_rate": 8000},
            [
                *("convert", "clip.wav", "--speaker", "p225", "--decoder", "wavenet"),
                *("--seed", "3", "--sample-rate", "8000"),
            ],
            "u.wav",
        ),
        ("units", {}, ["units", "clip.wav"], "u.txt"),
        ("units", {"dedup": True}, ["units", "clip.wav", "--dedup"], "u.txt"),
    ],
)
def test_the_bytes_are_the_command_lines(
    run: Run,
    client: TestClient,
    clip: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    fields: dict[str, Any],
    arguments: list[str],
    result: str,
) -> None:
    monkeypatch.chdir(clip.parent)
    into = [result] if what == "encode" else ["-o", result]
    done = run(*arguments, *into, "--model", tiny_model)
    assert done.status == 0, done.stderr
    answer = sent(client, what, clip, **fields)
    assert answer.status_code == 200, answer.text
    assert answer.content == Path(result).read_bytes()


def test_codes_are_decoded_as_by_the_command_line(
    run: Run, client: TestClient, codes: Path, tiny_model: Path, clip: Path
) -> None:
    for fields in ({}, {"speaker": "anna"}, {"reference": clip}):
        voice = [argument for value in fields.values() for argument in ("--speaker", value)]
        done = run("decode", codes, "-", *voice, "--model", tiny_model)
        answer = sent(client, "decode", codes, **fields)
        assert answer.headers["content-type"] == "audio/wav"
        assert answer.content == done.data
    assert sent(client, "units", codes).content == sent(client, "units", clip).content


def test_codes_of_another_packaged_are_decoded_by_it(run: Run, clip: Path) -> None:
    assert run("encode", clip, "--model", "speech-2k").status == 0
    codes = clip.with_suffix(".codes")
    done = run("decode", codes, "-")
    with TestClient(app(Service(device="cpu"), max_open=1, max_bytes=MAX_BYTES)) as client:
        assert sent(client, "decode", codes).content == done.data


@pytest.mark.parametrize(
    ("what", "name", "fields", "status", "error"),
    [
        ("encode", "notes.txt", {}, 400, "notes.txt: "),
        ("decode", "notes.txt", {}, 400, "notes.txt: "),
        ("decode", "clip.codes", {"speaker": "nobody"}, 400, "nobody: neither a voice"),
        ("decode", "clip.codes", {"decoder": "slow"}, 422, "decoder: "),
        ("decode", "clip.codes", {"seed": -1}, 422, "seed: "),
        ("decode", "clip.codes", {"temperature": "nan"}, 422, "temperature: "),
        ("decode", "clip.codes", {"melody": "sad"}, 422, "melody: sad: give keep"),
        ("decode", "clip.codes", {"melody": 9}, 422, "melody: 9.0: give keep"),
        ("decode", "clip.codes", {"sample_rate": 10**6}, 422, "sample_rate: "),
        ("decode", "clip.codes", {"sample-rate": 8000}, 422, "sample-rate: no such field"),
        ("decode?speaker=anna", "clip.codes", {}, 422, "speaker: send it as a field"),
        ("convert", "clip.wav", {}, 400, "no voice: give speaker"),
        ("convert", "clip.wav", {"speaker": "long.wav"}, 400, "long.wav: neither a voice"),
        ("convert", "clip.wav", {"speaker": "anna", "reference": True}, 400, "give one of them"),
        ("convert", "notes.txt", {"speaker": "anna", "pitch": 2}, 400, "need a pitch stream"),
        ("encode", "long.wav", {}, 413, "long.wav: lasts 4 s, and 3 s are taken"),
        ("encode", "huge.wav", {}, 413, "too large: 200000 bytes are taken"),
        ("nothing", "clip.wav", {}, 404, "Not Found"),
    ],
)
def test_an_error_is_one_line_of_json(
    client: TestClient,
    codes: Path,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    name: str,
    fields: dict[str, Any],
    status: int,
    error: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # where a path of the server's would be found
    (tmp_path / "notes.txt").write_text("no recording\nat all")
    write(tmp_path / "long.wav", spoken("slt", 0.0, 4.0))
    (tmp_path / "huge.wav").write_bytes(bytes(MAX_BYTES))
    if "reference" in fields:
        fields = {**fields, "reference": clip}
    answer = sent(client, what, tmp_path / name, **fields)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert error in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert str(tmp_path) not in answer.text


@pytest.mark.parametrize(
    ("what", "body", "field"),
    [
        ("encode", {"data": {"speaker": "anna"}}, "file"),
        ("encode", {"data": {"file": "clip.wav"}}, "file"),
        ("encode", {"content": b"RIFF&=" * 9}, "file"),
        (
            "encode",
            {
                "content": b"RIFF&=" * 9,
                "headers": {"Content-Type": "application/x-www-form-urlencoded"},
            },
            "file",
        ),
        (
            "convert",
            {"files": {"file": ("a.wav", b"")}, "data": {"reference": "clip.wav"}},
            "reference",
        ),
    ],
)
def test_without_a_file_it_says_how_to_send_one(
    client: TestClient, what: str, body: dict[str, Any], field: str
) -> None:
    answer = client.post(f"/{what}", **body)
    assert answer.status_code == 422
    fault = f"{field}: no file; send it in a form, as curl -F {field}=@in.wav does"
    assert answer.json() == {"error": fault}


def test_of_two_files_or_voices_none_is_left_out_in_silence(client: TestClient, clip: Path) -> None:
    file = (clip.name, clip.read_bytes())
    answer = client.post("/units", files=[("file", file), ("file", file)])
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "file: is there 2 times; give it once",
    )
    answer = sent(client, "convert", clip, speaker=["anna", "p225"])
    assert (answer.status_code, answer.json()["error"]) == (
        422,
        "speaker: is there 2 times; give it once",
    )


def test_a_body_of_untold_size_is_measured(client: TestClient) -> None:
    def body() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        for _ in range(10):
            yield bytes(MAX_BYTES // 8)
        yield b"\r\n--x--\r\n"

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/encode", content=body(), headers=kind)
    assert answer.status_code == 413
    assert "too large" in answer.json()["error"]


def test_warnings_come_with_the_result(client: TestClient, tmp_path: Path) -> None:
    silence = write(tmp_path / "silence.wav", spoken("slt", 0.0, 1.0) * 0)
    answer = sent(client, "encode", silence)
    assert answer.status_code == 200
    assert "silent" in answer.headers["x-warning"]


def test_one_too_many_is_refused_and_the_others_are_served(
    service: Service, client: TestClient, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, leave = threading.Event(), threading.Event()
    encode = service.encode

    def slow(*arguments: Any) -> Any:
        entered.set()
        assert leave.wait(60)
        return encode(*arguments)

    monkeypatch.setattr(service, "encode", slow)
    answers: list[int] = []
    waiting = [
        threading.Thread(target=lambda: answers.append(sent(client, "encode", clip).status_code))
        for _ in range(2)
    ]
    for one in waiting:
        one.start()
    assert entered.wait(60)
    while client.get("/health").json()["n_open"] < 2:
        pass
    refused = sent(client, "units", clip)
    leave.set()
    for one in waiting:
        one.join()
    assert refused.status_code == 429
    assert "try again later" in refused.json()["error"]
    assert answers == [200, 200]
    assert client.get("/health").json()["n_open"] == 0


def test_health_and_openapi_tell_what_is_there(client: TestClient, service: Service) -> None:
    health = client.get("/health").json()
    assert health["fingerprint"] == service.codec.fingerprint.hex()
    assert health["voices"] == ["anna", "p225"]
    paths = client.get("/openapi.json").json()["paths"]
    assert paths.keys() == {"/health", "/encode", "/decode", "/convert", "/units"}
    for path in paths.keys() - {"/health"}:
        answers = paths[path]["post"]["responses"]
        assert {"200", "400", "413", "422", "429"} == answers.keys()
        error = answers["429"]["content"]["application/json"]["schema"]
        assert error["properties"].keys() == {"error"}


@pytest.fixture
def start(packaged: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], int]]]:
    """Starts `vqcodec serve` on a free port, and tells that."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> tuple[subprocess.Popen[str], int]:
        command = [
            sys.executable,
            "-m",
            "vqcodec",
            "serve",
            "--port",
            "0",
            "--model",
            packaged,
        ]
        server = subprocess.Popen(
            [*map(str, command), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(server)
        assert server.stdout
        line = server.stdout.readline()
        assert "packaged at http://127.0.0.1:" in line, server.communicate()[1]
        return server, int(line.split(":")[2].split(",")[0])

    yield start
    for server in started:
        server.kill()
        server.communicate()


@pytest.mark.parametrize(("sign", "status"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_it_ends_when_what_it_does_is_done(
    start: Callable[..., Any], clip: Path, sign: str, status: int
) -> None:
    server, port = start()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="clip.wav"\r\n\r\n'
    body += clip.read_bytes() + b"\r\n--x--\r\n"
    connection.putrequest("POST", "/encode")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    connection.send(body[:100])
    other = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    other.request("GET", "/health")
    assert json.loads(other.getresponse().read())["n_open"] == 1  # so that one is under way
    server.send_signal(getattr(signal, sign))
    connection.send(body[100:])
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.read(4) == b"\x89VQC"
    connection.close()
    other.close()
    _, stderr = server.communicate(timeout=60)
    assert (server.returncode, stderr) == (status, "")


def test_a_taken_port_is_told_in_a_line(
    run: Run, start: Callable[..., Any], tiny_model: Path
) -> None:
    _, port = start()
    done = run("serve", "--port", str(port), "--model", tiny_model)
    assert done.status == 1
    assert done.stderr.startswith(f"vqcodec: 127.0.0.1 port {port}: Address already in use")
    assert done.stderr.count("\n") == 1


def test_the_load_is_measured(run_script: Run, tmp_path: Path) -> None:
    done = run_script("benchmarks/load.py", "--clients", "3", "--seconds", "2", "-o", tmp_path)
    assert done.status == 0, done.stderr
    assert "| other errors | 0 |" in done.stdout
    assert (tmp_path / "load.md").read_text() in done.stdout
    answers = (tmp_path / "load.csv").read_text().splitlines()[1:]
    assert answers
    assert all(",200," in line for line in answers)


def test_only_warnings_about_recordings_are_told(service: Service) -> None:
    assert told(lambda: 3) == (3, [])
