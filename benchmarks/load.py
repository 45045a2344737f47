"""Many clients of one server at once; see benchmarks/README.md."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Annotated

import typer
from command import Output, facts_table, publish, run

import vqcodec
from vqcodec.errors import VqcodecError

SAMPLE = Path(__file__).parents[1] / "samples" / "slt.wav"
VOICE = "p225"
WORK = ("encode", "decode", "convert", "units")
BUSY, OK = 429, 200
WARM_S = 10.0
"""After which memory should not grow."""


@dataclass
class Tally:
    """What came back.

    Attributes:
        answers: how often each kind of work got each status; 0 for a broken connection.
        waits: seconds that each answered request took.
        memory_mb: of the server, with the seconds since the start.
        lock: to count under.
    """

    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    memory_mb: list[tuple[float, float]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def number(self, status: int) -> int:
        """Of the answers of one status."""
        return sum(n for (_, found), n in self.answers.items() if found == status)

    def memory(self, since_s: float, until_s: float) -> float:
        """The median between two moments, in MB; nan if there was no look."""
        looks = [mb for s, mb in self.memory_mb if since_s <= s < until_s]
        return median(looks) if looks else float("nan")


def body(name: str, data: bytes, fields: dict[str, str]) -> bytes:
    """A multipart body with a file, its boundary `x`."""
    parts = [f'name="{key}"\r\n\r\n{value}'.encode() for key, value in fields.items()]
    parts.append(f'name="file"; filename="{name}"\r\n\r\n'.encode() + data)
    head = b"--x\r\nContent-Disposition: form-data; "
    return b"".join(head + part + b"\r\n" for part in parts) + b"--x--\r\n"


def client(port: int, bodies: dict[str, bytes], first: int, end: float, tally: Tally) -> None:
    """Send one request after another until the end; who is refused waits as long as it is told."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    kinds = cycle(WORK[first:] + WORK[:first])
    kind = next(kinds)
    while (began := time.monotonic()) < end:
        try:
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            connection.request("POST", f"/{kind}", bodies[kind], headers)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            connection.close()
            status = 0
        with tally.lock:
            tally.answers[kind, status] += 1
        if status == BUSY:
            time.sleep(float(answer.headers["Retry-After"]))
        else:
            tally.waits.append(time.monotonic() - began)
            kind = next(kinds)
    connection.close()


def loaded(server: subprocess.Popen[str], port: int, n_clients: int, seconds: float) -> Tally:
    """Let clients loose on a server, and watch its memory."""
    codec = vqcodec.load(device="cpu", voices=False)
    recording, codes = SAMPLE.read_bytes(), codec.encode(SAMPLE).to_bytes()
    bodies = {
        "encode": body("in.wav", recording, {}),
        "decode": body("in.codes", codes, {}),
        "convert": body("in.wav", recording, {"speaker": VOICE}),
        "units": body("in.wav", recording, {}),
    }
    tally, began = Tally(), time.monotonic()
    end = began + seconds
    clients = [
        threading.Thread(target=client, args=(port, bodies, n % len(WORK), end, tally))
        for n in range(n_clients)
    ]
    for one in clients:
        one.start()
    status = Path(f"/proc/{server.pid}/status")
    while any(one.is_alive() for one in clients):
        tally.memory_mb.append((time.monotonic() - began, resident_mb(status)))
        time.sleep(0.5)
    return tally


def resident_mb(status: Path) -> float:
    """Memory of a process, of which this is the file in Linux's /proc."""
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def alone(seconds: float) -> float:
    """The same work, a call after another in this process: calls a second."""
    codec = vqcodec.load(device="cpu", voices=False)
    codes = codec.encode(SAMPLE)
    calls = (
        lambda: codec.encode(SAMPLE),
        lambda: codec.decode(codes),
        lambda: codec.convert(SAMPLE, speaker=VOICE),
        lambda: codec.encode(SAMPLE, speaker=VOICE),
    )
    began, n_done = time.monotonic(), 0
    while time.monotonic() - began < seconds or n_done % len(calls):
        calls[n_done % len(calls)]()
        n_done += 1
    return n_done / (time.monotonic() - began)


def main(
    clients: Annotated[int, typer.Option(min=1, help="At once.")] = 64,
    seconds: Annotated[float, typer.Option(min=1, help="Of sending.")] = 60.0,
    output: Output = Path("report"),
) -> None:
    """Load `vqcodec serve` on loopback; write load.csv and load.md; any error but 429 fails."""
    command = [sys.executable, "-m", "vqcodec", "serve", "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            port = int(server.stdout.readline().split(":")[2].split(",")[0])
            began = time.monotonic()
            tally = loaded(server, port, clients, seconds)
            took = time.monotonic() - began
        finally:
            server.terminate()
    rows = [
        {"work": kind, "status": status, "answers": n}
        for (kind, status), n in sorted(tally.answers.items())
    ]
    n_done, n_busy = tally.number(OK), tally.number(BUSY)
    last = tally.memory_mb[-1][0]
    facts = {
        "requests a second": f"{n_done / took:.2f}",
        "calls a second in one process without a server": f"{alone(seconds / 4):.2f}",
        "seconds of a request, median": f"{median(tally.waits):.2f}" if tally.waits else "",
        "refused for now (429)": str(n_busy),
        "other errors": str(sum(tally.answers.values()) - n_done - n_busy),
        f"MB, after {WARM_S:g} s": f"{tally.memory(WARM_S, 2 * WARM_S):.0f}",
        "MB, at the end": f"{tally.memory(last - WARM_S, last):.0f}",
    }
    table = facts_table(facts)
    page = f"{clients} clients, {seconds:g} s, {SAMPLE.name}.\n\n{table}"
    publish(output, "load", rows, page)
    if facts["other errors"] != "0":
        raise VqcodecError(f"some requests failed: {dict(tally.answers)}")


if __name__ == "__main__":
    run(main)
