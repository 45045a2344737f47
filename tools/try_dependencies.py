"""Try the versions at both ends of what pyproject.toml allows, beside the locked ones.

Each trial is a virtual environment of its own. The base installs encode, decode and convert a
sample, and must all give the same codes; the lowest of everything runs the tests. (The newest of
everything is what CI runs from the lock.)

python tools/try_dependencies.py                  # all, one after the other
python tools/try_dependencies.py base-newest --python 3.13
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).parents[1]

CONVERSION = """
import hashlib, platform, sys
import numpy, onnxruntime
import vqcodec

codec = vqcodec.load(device="cpu")
codes = codec.encode("samples/rms.wav")
decoded = codec.decode(codes)
converted = codec.convert("samples/rms.wav", speaker="p225")
assert len(decoded) == len(converted) == codes.n_samples
assert not any(name in sys.modules for name in ("torch", "numba", "librosa", "tensorboard"))
rms = [f"{numpy.sqrt(numpy.square(each).mean()):.4f}" for each in (decoded, converted)]
versions = f"onnxruntime {onnxruntime.__version__}, numpy {numpy.__version__}"
print(
    f"python {platform.python_version()}, {versions}:",
    f"RMS decoded, converted {' '.join(rms)}; codes",
    hashlib.sha256(codes.to_bytes()).hexdigest()[:16],
)
"""


def resolved(resolution: str, python: str, extra: str | None) -> str:
    """The versions that `uv pip compile` chooses: `lowest-direct` or `highest`."""
    command = [*uv("compile"), "pyproject.toml", "--quiet", "--no-header", "--no-annotate"]
    command += ["--resolution", resolution, "--python-version", python]
    command += ["--extra", extra] if extra else []
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def uv(*command: str) -> list[str]:
    """A command of `uv pip`."""
    return [sys.executable, "-m", "uv", "pip", *command]


def installed(folder: Path, requirements: str, python: str) -> Path:
    """A fresh environment with the requirements and this package: its interpreter."""
    environment, listed = folder / "venv", folder / "requirements.txt"
    listed.write_text(requirements)
    make = [sys.executable, "-m", "uv", "venv", "--quiet", "--python", python, str(environment)]
    subprocess.run(make, check=True)
    interpreter = environment / "bin" / "python"
    into = [*uv("install"), "--quiet", "--python", str(interpreter)]
    subprocess.run([*into, "--requirement", str(listed)], check=True)
    subprocess.run([*into, "--no-deps", str(ROOT)], check=True)
    return interpreter


def convert(interpreter: Path) -> str:
    """Use the base install; returns what it is and the digest of its codes."""
    command = [str(interpreter), "-P", "-c", CONVERSION]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def test(interpreter: Path) -> str:
    """Run the tests; returns their last line, and before it which of them failed."""
    command = [str(interpreter), "-P", "-m", "pytest", "-q"]
    done = subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.PIPE, text=True)
    *lines, last = done.stdout.splitlines()
    return "\n".join([*(line for line in lines if line.startswith(("FAILED", "ERROR"))), last])


Trial = tuple[Callable[[str], str], Callable[[Path], str]]
TRIALS: dict[str, Trial] = {
    "base-lowest": (lambda python: resolved("lowest-direct", python, None), convert),
    "base-locked": (lambda _: (ROOT / "requirements" / "base.txt").read_text(), convert),
    "base-newest": (lambda python: resolved("highest", python, None), convert),
    "all-lowest": (lambda python: resolved("lowest-direct", python, "dev"), test),
}


def main(
    trials: Annotated[list[str] | None, typer.Argument(help=", ".join(TRIALS))] = None,
    python: Annotated[str, typer.Option(help="Its version.")] = "3.11",
) -> None:
    """Try versions of the dependencies."""
    digests = set()
    for name in trials or list(TRIALS):
        requirements, use = TRIALS[name]
        with tempfile.TemporaryDirectory() as folder:
            said = use(installed(Path(folder), requirements(python), python)).strip()
        typer.echo(f"{name}: {said}")
        if use is convert:
            digests.add(said.rpartition(" ")[2])
    if len(digests) > 1:
        raise SystemExit("the codes differ")


if __name__ == "__main__":
    typer.run(main)
