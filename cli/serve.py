"""serve and studio: the codec over HTTP, and as a page in the browser."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from vqcodec_cli import options as opt

Host = Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 is every network.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 is any free one.")]
MaxSeconds = Annotated[float, typer.Option(min=1, help="That a recording may last.")]
MaxMegabytes = Annotated[int, typer.Option("--max-mb", min=1, help="That may be sent at once.")]


def serve(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests in work or waiting; one more is refused (429).")
    ] = 16,
    max_seconds: MaxSeconds = 600.0,
    max_mb: MaxMegabytes = 64,
    model: opt.Model = None,
    voices: opt.Voices = None,
    device: opt.Device = "auto",
) -> None:
    """Encode, decode, convert and write units for whoever sends files over HTTP.

    POST /encode, /decode, /convert or /units with a file; /openapi.json says with what else. The
    results are those of the commands. An error is a line of JSON: {"error": "..."}. There is no
    password: who can reach the port can use it.

    Example: vqcodec serve --port 8000
    """
    from vqcodec.extras import library

    for name in ("fastapi", "python_multipart", "uvicorn"):
        library(name)
    from vqcodec.serving.api import app
    from vqcodec.serving.listening import listen
    from vqcodec.serving.service import Service

    service = Service(model, voices=voices, device=device, max_seconds=max_seconds)
    listen(
        app(service, max_open=queue, max_bytes=max_mb << 20),
        host,
        port,
        lambda address: typer.echo(f"{service.codec.name} at {address}, until Ctrl-C"),
    )


def studio(
    host: Host = "127.0.0.1",
    port: Port = 7860,
    max_seconds: MaxSeconds = 600.0,
    max_mb: MaxMegabytes = 64,
    model: opt.Model = None,
    voices: opt.Voices = None,
    device: opt.Device = "auto",
) -> None:
    """Open a page on which a recording is seen, encoded, and heard in any voice.

    Recordings are dropped or recorded there; voices that are enrolled there last as long as the
    page is open, as do all files. There is no password: who can reach the port can use it.

    Example: vqcodec studio
    """
    from vqcodec.extras import library

    with TemporaryDirectory(prefix="vqcodec-studio-") as folder:
        # Where gradio keeps files; and it tells nobody that it has been started.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        for name in ("fastapi", "gradio", "uvicorn"):
            library(name)
        from vqcodec.serving.listening import listen
        from vqcodec.serving.studio import Studio, app

        codec = opt.load_codec(model, voices, device)
        page = app(Studio(codec, Path(folder), max_seconds), max_bytes=max_mb << 20)
        listen(
            page,
            host,
            port,
            lambda address: typer.echo(f"open {address} in a browser; Ctrl-C ends it"),
            patience_s=2,
        )
