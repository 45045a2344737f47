"""`python -m vqcodec`: the command line, for torchrun and for environments without scripts."""

from __future__ import annotations

from vqcodec_cli.main import run

if __name__ == "__main__":
    run()
