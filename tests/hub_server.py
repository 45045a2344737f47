"""A stand-in for the Hugging Face Hub: what huggingface_hub asks of it, on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

TOKEN = "hf_test"


@dataclass
class Hub:
    """Repositories, each a list of commits, each a table of files.

    Attributes:
        address: of the server.
        commits: repository -> (commit, files by name), the latest last.
        uploads: SHA-256 -> what was uploaded and may not yet be committed.
        is_damaging: whether the last byte of what is downloaded is another.
        status: what every request is answered with instead, if not 0.
    """

    address: str = ""
    commits: dict[str, list[tuple[str, dict[str, bytes]]]] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    is_damaging: bool = False
    status: int = 0

    def commit(self, repository: str, files: dict[str, bytes]) -> str:
        history = self.commits.setdefault(repository, [])
        name = hashlib.sha1(f"{repository} {len(history)}".encode()).hexdigest()
        history.append((name, {**(history[-1][1] if history else {}), **files}))
        return name


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def tell(self, content: object) -> None:
        self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.hub.status:
            return self.answer(self.hub.status)
        repository, _, rest = unquote(self.path[1:]).partition("/resolve/")
        revision, _, name = rest.partition("/")
        if repository not in self.hub.commits:
            return self.answer(401, X_Error_Message="Invalid username or password.")
        history = dict(self.hub.commits[repository])
        commit = [*history][-1] if revision == "main" else revision
        if commit not in history:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        data = history[commit].get(name)
        if data is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        if self.hub.is_damaging:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.answer(200, data, ETag=etag, X_Repo_Commit=commit)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        digest = self.path.rpartition("/")[2]
        assert hashlib.sha256(data).hexdigest() == digest
        self.hub.uploads[digest] = data
        self.answer(200)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, X_Error_Message="Invalid username or password.")
        match self.path[1:].split("/"):
            case ["api", "validate-yaml"]:
                self.tell({"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                wanted = json.loads(body)
                repository = f"{wanted['organization']}/{wanted['name']}"
                if repository in self.hub.commits:
                    return self.answer(409, json.dumps({"url": repository}).encode())
                self.hub.commits[repository] = []
                self.tell({"url": f"{self.hub.address}/{repository}"})
            case ["api", "models", _, _, "preupload", "main"]:
                self.tell({"files": [_mode(file["path"]) for file in json.loads(body)["files"]]})
            case [_, _, "info", "lfs", "objects", "batch"]:
                self.tell({"objects": [self.action(one) for one in json.loads(body)["objects"]]})
            case ["api", "models", owner, model, "commit", "main"]:
                lines = [json.loads(line) for line in body.splitlines()]
                files = dict(map(self.file, (line for line in lines if line["key"] != "header")))
                commit = self.hub.commit(f"{owner}/{model}", files)
                place = f"{self.hub.address}/{owner}/{model}/commit/{commit}"
                self.tell({"commitUrl": place, "commitOid": commit})
            case _:
                self.answer(404)

    def action(self, wanted: dict[str, str]) -> dict[str, object]:
        place = f"{self.hub.address}/upload/{wanted['oid']}"
        return {**wanted, "actions": {"upload": {"href": place}}}

    def file(self, line: dict[str, dict[str, str]]) -> tuple[str, bytes]:
        value = line["value"]
        is_large = line["key"] == "lfsFile"
        data = self.hub.uploads[value["oid"]] if is_large else base64.b64decode(value["content"])
        return value["path"], data


def _mode(path: str) -> dict[str, object]:
    mode = "lfs" if path.endswith(".safetensors") else "regular"
    return {"path": path, "uploadMode": mode, "shouldIgnore": False}


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that is reachable while the block runs."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
