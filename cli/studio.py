"""studio: the codec as a page in the browser."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import typer
from vqcodec_cli import options as opt
from vqcodec_cli.serve import Host, MaxMegabytes, MaxSeconds, Port


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
