"""The commands, and what becomes of their errors."""

from __future__ import annotations

import codecs
import gc
import io
import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import repeat
from typing import Annotated, Any, NoReturn

import typer
from vqcodec_cli.datasets import decode_dataset, encode_dataset
from vqcodec_cli.display import USAGE_ERROR, message, recording_warnings, usage_message
from vqcodec_cli.evaluate import evaluate, leakage, units_eval
from vqcodec_cli.export import app as export
from vqcodec_cli.info import info, verify
from vqcodec_cli.jobs import INTERRUPTED
from vqcodec_cli.models import app as model
from vqcodec_cli.models import models, speakers
from vqcodec_cli.prepare import prepare
from vqcodec_cli.sample import sample, score
from vqcodec_cli.serve import serve, studio
from vqcodec_cli.train import recipes, train
from vqcodec_cli.transcode import convert, decode, encode
from vqcodec_cli.units import units
from vqcodec_cli.voices import app as voices
from vqcodec_cli.voices import enroll

HELP: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
COMMANDS: dict[str, Callable[..., None]] = {
    **{"encode": encode, "decode": decode, "convert": convert},
    **{"enroll": enroll, "speakers": speakers, "models": models, "info": info, "verify": verify},
    **{"prepare": prepare, "train": train, "recipes": recipes},
    **{"sample": sample, "score": score},
    **{"units": units, "units-eval": units_eval, "leakage": leakage},
    **{"encode-dataset": encode_dataset, "decode-dataset": decode_dataset},
    **{"serve": serve, "studio": studio},
    "eval": evaluate,
}
GROUPS = {"voices": voices, "model": model, "export": export}


def command_line(*wanted: str) -> typer.Typer:
    """All commands, or those of these names: to understand all takes longer than to import them."""
    app = typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings=HELP,
        rich_markup_mode="markdown",
    )
    app.callback()(common)
    for name in wanted or (*COMMANDS, *GROUPS):
        if name in COMMANDS:
            app.command(name, context_settings=HELP)(COMMANDS[name])
        else:
            app.add_typer(GROUPS[name], name=name, context_settings=HELP)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from vqcodec import __version__

        typer.echo(f"vqcodec {__version__}")
        raise typer.Exit()


def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error; may follow any command."),
    ] = False,
) -> None:
    """Speech to codes, codes to speech, and one voice to another.

    Example: vqcodec convert in.wav --speaker p239 -o out.wav
    """


def run() -> NoReturn:
    """Run this process's command line."""
    # torch is a million objects that stay: to look through them for garbage, again and again while
    # it is imported and once more at the end, takes a second.
    gc.set_threshold(100_000)
    # NumPy starts threads that wait for work, each at full load for some 25 ms before it sleeps.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    status = main()
    gc.freeze()
    if status == INTERRUPTED:
        # A thread that is at work would be waited for.
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(status)
    sys.exit(status)


def _shown(error: UnicodeError) -> tuple[bytes, int]:
    """What stands for characters that the encoding of stdout lacks."""
    assert isinstance(error, UnicodeEncodeError)
    faulty = error.object[error.start : error.end].replace("→", "->")
    # Names of files need not be UTF-8: their other bytes come as they are.
    escapes = (
        "surrogateescape" if "\udc80" <= char <= "\udcff" else "backslashreplace" for char in faulty
    )
    return b"".join(map(str.encode, faulty, repeat("ascii"), escapes)), error.end


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        arguments: without the program's name; those of this process when None.

    Returns:
        The exit status: 0 done, 1 bad data or a failure, 2 bad arguments, 130 interrupted.
    """
    codecs.register_error("vqcodec", _shown)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="vqcodec")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    if debug:
        logging.basicConfig()
        logging.getLogger("vqcodec_cli").setLevel(logging.DEBUG)
    arguments = [argument for argument in arguments if argument != "--debug"] or ["--help"]
    app = command_line(*(name for name in arguments[:1] if name in COMMANDS | GROUPS))
    try:
        with recording_warnings():
            status = app(arguments, prog_name="vqcodec", standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has left; flushing what remains at exit would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        is_usage = isinstance(error, USAGE_ERROR)
        if debug and not is_usage:
            traceback.print_exc()
        typer.echo(f"vqcodec: {usage_message(error) if is_usage else message(error)}", err=True)
        return 2 if is_usage else 1
