"""`python -m vqcodec`: the command line, for torchrun and for environments without scripts."""

from __future__ import annotations

import sys

from vqcodec_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
