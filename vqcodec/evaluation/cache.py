"""How a report works through its recordings: in several processes, and each only once.

What was found out about a recording is kept in a small JSON file, named by a digest of all that it
depends on, so that an interrupted run continues and another model or setting starts anew.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import multiprocessing
import re
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import cache
from itertools import compress, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

import vqcodec
from vqcodec.codec import Codec
from vqcodec.data.corpora import Utterance
from vqcodec.errors import RecordingWarning, VqcodecError
from vqcodec.evaluation.quality import SAMPLE_RATE, check_pair
from vqcodec.evaluation.recognition import Recognizer, WordErrors, find_recognizer, word_errors
from vqcodec.files import file_digest, write_atomically
from vqcodec.format.codes import Codes
from vqcodec.inference.engines.pytorch import TorchEngine
from vqcodec.models import DecoderChoice, DecoderName
from vqcodec.weights.registry import find

_VERSION = 4  # of what is kept; raise it where a measure comes to mean something else

# What is measured depends on them.
_LIBRARIES = (
    *("pesq", "pystoi", "pyworld", "resemblyzer", "speechmos"),
    *("onnxruntime", "pocketsphinx", "jiwer", "matplotlib"),
    *("torch", "numpy", "librosa", "soxr"),
)

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class Progress(NamedTuple):
    """How far a report has come.

    Attributes:
        n_done, n_all: recordings; `n_all` is 0 before they are known.
        waiting_for: what is being worked on.
    """

    n_done: int
    n_all: int
    waiting_for: str


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True)
class Setup:
    """What all recordings of a report go through.

    Attributes:
        model, model_digest, decoder: path of the model file, its SHA-256, and which decoder.
        versions: of vqcodec and of the libraries that measure.
        recognizer: of words.
    """

    model: str
    model_digest: str
    decoder: DecoderName
    versions: dict[str, str]
    recognizer: Recognizer

    def codec(self) -> Codec:
        """The model, loaded once in every process, on the CPU."""
        return _loaded(self.model)

    def about(self) -> str:
        """Name the model, down to the decoder that its fingerprint leaves out."""
        codec = self.codec()
        return (
            f"model {codec.name} (codes {codec.fingerprint.hex()}, file {self.model_digest[:12]}), "
            f"decoder {self.decoder}"
        )

    def measured_with(self) -> str:
        """The versions, in a line."""
        return ", ".join(f"{name} {version}" for name, version in self.versions.items())

    def encode(
        self, utterance: Utterance, *, refine: bool, heard: np.ndarray | None = None
    ) -> Codes:
        """Encode a recording, or what is `heard` (T,) at `SAMPLE_RATE` in its place.

        A model with a speaker table is told who speaks.
        """
        source = utterance.path if heard is None else (SAMPLE_RATE, heard)
        speaker = None if self.codec().hears_speakers else utterance.speaker
        with warnings.catch_warnings():
            if heard is not None:  # that it is unlike speech is what is to be measured
                warnings.simplefilter("ignore", RecordingWarning)
            return self.codec().encode(source, speaker=speaker, refine=refine)

    def listen(
        self, utterance: Utterance, reference: np.ndarray, decoded: np.ndarray
    ) -> WordErrors:
        """Count what is misheard in a form (T,) of a recording (T,); errors as of `word_errors`.

        Raises UndefinedMetricError also where the recording is silent or far too short to say its
        text.
        """
        check_pair(reference, reference)
        return word_errors(utterance.text, decoded, self.recognizer, utterance.language)

    def decode(self, codes: Codes, speaker: str | None = None) -> np.ndarray:
        """Decode to (T,) at `SAMPLE_RATE`."""
        return self.codec().decode(
            codes, decoder=self.decoder, speaker=speaker, sample_rate=SAMPLE_RATE
        )


def prepare_setup(
    model: str | None,
    decoder: DecoderChoice,
    recognizer: str | None = None,
    on_progress: OnProgress | None = None,
) -> Setup:
    """Find out what a report will be of; arguments as of `comparison.compare`.

    Raises VqcodecError if there is no such model, decoder or recogniser, or an extra is missing.
    """

    def tell(what: str) -> None:
        if on_progress is not None:
            on_progress(Progress(0, 0, what))

    found = {"vqcodec": vqcodec.__version__, **library_versions()}
    path = find(model)
    chosen = _loaded(str(path)).decoder(decoder)
    listener = find_recognizer(recognizer, tell)
    return Setup(str(path), file_digest(path), chosen, found, listener)


def library_versions() -> dict[str, str]:
    """The installed version of every library that measures, none of which is imported.

    Raises VqcodecError if one is missing.
    """
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise VqcodecError(f"{name}: not installed; pip install 'vqcodec[eval]'") from error
    return found


def read_or_make(
    path: Path, make: Callable[[], dict[str, Any]], *, also: Sequence[Path] = ()
) -> dict[str, Any]:
    """Read a JSON file of what was found out before, or find it out and write the file.

    `also` names files that `make` writes, which must be there as well.
    """
    if all(file.is_file() for file in (path, *also)):
        found: dict[str, Any] = json.loads(path.read_bytes())
        return found
    made = make()
    write_atomically(path, json.dumps(made).encode())
    return made


def cache_stem(
    setup: Setup, utterance: Utterance, what: str, *, is_by_model: bool = True, made_by: str = ""
) -> str:
    """A file name that is readable, and another for whatever gives another result.

    `what` is done to the recording, whose content counts and not its place; `made_by` is what else
    that depends on, and `is_by_model` says whether the model has a part in it.
    """
    request = {
        **asdict(setup),
        # Neither the place of its weights nor why it was chosen makes it hear anything else.
        "recognizer": [setup.recognizer.name, setup.recognizer.digest, setup.recognizer.versions],
        **({} if is_by_model else {"model_digest": None, "decoder": None}),
        "model": None,
        "version": _VERSION,
        "name": utterance.name,
        "recording": file_digest(utterance.path),
        "speaker": utterance.speaker,
        "text": utterance.text,
        "language": utterance.language,
        "what": what,
        "made by": made_by,
    }
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9-]+", "_", f"{utterance.name} {what}")[-80:]
    return f"{readable}.{digest[:16]}"


def map_in_processes(
    function: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    *,
    jobs: int,
    name_of: Callable[[_Task], str] = str,
    on_progress: OnProgress | None = None,
) -> list[_Result]:
    """Apply a function to tasks in processes of one thread each; results in the tasks' order.

    Args:
        function: of the top level of a module; the results must not depend on who works when.
        tasks: what it is applied to.
        jobs: processes at a time; the calling script needs `if __name__ == "__main__"`.
        name_of: what a task is called where it is waited for.
        on_progress: called at the start, and whenever a task is done.

    Raises:
        VqcodecError: a process died.
        Exception: the first that the function raises; what has not begun is then left.
    """
    # A fork of a process with threads, which torch may have started, can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), context, initializer=_begin_process)
    try:
        futures = [pool.submit(function, task) for task in tasks]

        def tell(n_done: int) -> None:
            if on_progress is not None:
                # They are begun in their order.
                begun = islice(compress(tasks, (not one.done() for one in futures)), jobs)
                on_progress(Progress(n_done, len(tasks), ", ".join(map(name_of, begun))))

        tell(0)
        for n_done, future in enumerate(as_completed(futures), 1):
            future.result()
            tell(n_done)
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise VqcodecError(
            "a process died, likely for lack of memory; run it again with fewer jobs, it continues"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_process() -> None:
    torch.set_num_threads(1)
    # An interrupt ends it without a traceback, and so does the death of whoever started it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    signal.raise_signal(signal.SIGTERM)


@cache
def _loaded(model: str) -> Codec:
    codec = vqcodec.load(model, device="cpu", voices=False)
    if isinstance(codec.engine, TorchEngine):
        # Else it multiplies in bfloat16 where a processor can, and other words are misheard there.
        for decoder in codec.engine.model.decoders.values():
            decoder.forward = torch.autocast("cpu", enabled=False)(decoder.forward)
    return codec
