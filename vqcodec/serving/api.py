"""The HTTP interface of `vqcodec serve`."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import PurePath
from typing import IO, Annotated, Any

from fastapi import Depends, FastAPI, Form, HTTPException, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import AfterValidator, BaseModel
from pydantic_core import PydanticCustomError
from starlette.datastructures import UploadFile as SentFile
from starlette.exceptions import HTTPException as StarletteHTTPException

import vqcodec
from vqcodec.errors import VqcodecError
from vqcodec.models import DecoderChoice, Melody
from vqcodec.models.interfaces import read_melody
from vqcodec.serving.admission import Admission
from vqcodec.serving.service import Service, TooLongError, Upload, told

BLOCK_BYTES = 1 << 16


class Error(BaseModel):
    """What went wrong, and what to do about it, in one line."""

    error: str


class Health(BaseModel):
    """How the server is.

    Attributes:
        model: its name.
        fingerprint: of the model, which code files name.
        voices: names to give as `speaker`.
        n_open: requests in work or waiting.
        max_open: requests of which one more is refused.
    """

    model: str
    fingerprint: str
    voices: list[str]
    n_open: int
    max_open: int


class Codes(StreamingResponse):
    """A code file."""

    media_type = "application/octet-stream"


class Sound(StreamingResponse):
    """A WAV: 16 bit, mono, as long as the recording."""

    media_type = "audio/wav"


class UnitsLine(StreamingResponse):
    """A line `name|17 402 9`."""

    media_type = "text/plain; charset=utf-8"


Voice = Annotated[str | None, Form(description="A voice's name; /health lists them.")]
Decoder = Annotated[DecoderChoice, Form(description="auto: the model's best.")]
Seed = Annotated[int, Form(ge=0, description="Of the WaveNet's draws.")]
Temperature = Annotated[float, Form(ge=0, allow_inf_nan=False, description="Of the same.")]
Pitch = Annotated[float, Form(ge=-24, le=24, description="Semitones by which it is higher.")]


def _melody(text: str) -> Melody:
    try:
        return read_melody(text)
    except VqcodecError as error:
        raise PydanticCustomError(
            "melody", "{fault}", {"fault": str(error).removeprefix("melody ")}
        ) from None


MelodyText = Annotated[
    str, Form(description="keep, flat, or a factor for its rise and fall."), AfterValidator(_melody)
]
Rate = Annotated[
    int | None, Form(ge=1000, le=192_000, description="Of the WAV in Hz; the recording's own.")
]


def _wanted(
    speaker: Voice = None,
    reference: UploadFile | None = None,
    decoder: Decoder = "auto",
    seed: Seed = 0,
    temperature: Temperature = 1.0,
    sample_rate: Rate = None,
    pitch: Pitch = 0.0,
    melody: MelodyText = "keep",
) -> dict[str, Any]:
    """The fields that say in which voice and how to decode."""
    return {
        "speaker": speaker,
        "reference": None if reference is None else _upload(reference),
        "decoder": decoder,
        "seed": seed,
        "temperature": temperature,
        "sample_rate": sample_rate,
        "pitch": pitch,
        "melody": melody,
    }


Wanted = Annotated[dict[str, Any], Depends(_wanted)]


async def _only_known(request: Request) -> None:
    """Refuse what no work reads: it would be left out without a word."""
    known = request.scope["route"].body_field.field_info.annotation.model_fields
    for name in request.query_params:
        raise HTTPException(422, f"{name}: send it as a field of the form, not in the address")
    form = await request.form()
    if not isinstance(form.get("file"), SentFile):  # any other body is a form of strange names
        raise _no_file("file")
    for name, n_given in Counter(name for name, _ in form.multi_items()).items():
        if name not in known:
            raise HTTPException(422, f"{name}: no such field; there are {', '.join(known)}")
        if n_given > 1:
            raise HTTPException(422, f"{name}: is there {n_given} times; give it once")
    reference = form.get("reference")
    if reference and not isinstance(reference, SentFile):
        raise _no_file("reference")


def _no_file(name: str) -> HTTPException:
    return HTTPException(422, f"{name}: no file; send it in a form, as curl -F {name}=@in.wav does")


_ERROR = Error.model_json_schema()
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": what, "content": {"application/json": {"schema": _ERROR}}}
    for status, what in (
        (400, "The file, a voice or an option cannot be used"),
        (413, "The file is too large or lasts too long"),
        (422, "A field is missing, unknown, there twice or impossible"),
        (429, "Too many requests are waiting"),
    )
}


class Worker:
    """Does the work of one request at a time."""

    def __init__(self) -> None:
        self._pool, self._turn = ThreadPoolExecutor(1, "vqcodec"), asyncio.Lock()

    async def answer(
        self, request: Request, kind: type[StreamingResponse], work: Callable[[], IO[bytes]]
    ) -> Response:
        """The result of some work, when it has its turn; of nobody's who has left.

        The work makes a file, at its start, which is closed when it has been sent.
        """
        async with self._turn:
            if await request.is_disconnected():
                return Response(status_code=499)
            loop = asyncio.get_running_loop()
            file, warnings = await loop.run_in_executor(self._pool, partial(told, work))
        headers = {"Content-Length": str(_size(file))}
        if warnings:
            headers["X-Warning"] = "; ".join(warnings).encode("ascii", "backslashreplace").decode()
        return kind(_blocks(file), headers=headers)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def app(service: Service, *, max_open: int, max_bytes: int) -> Admission:
    """The ASGI application; `max_open` requests are in work or waiting at a time."""
    worker = Worker()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        worker.close()

    # The pages of documentation would fetch their scripts from elsewhere; /openapi.json does not.
    api = FastAPI(
        title="vqcodec",
        description="A neural speech codec and voice converter.",
        version=vqcodec.__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    admission = Admission(api, max_open=max_open, max_bytes=max_bytes)

    @api.get("/health")
    async def health() -> Health:
        """Say what is served, and how many are waiting."""
        codec = service.codec
        return Health(
            model=codec.name,
            fingerprint=codec.fingerprint.hex(),
            voices=sorted(codec.voices),
            n_open=admission.n_open,
            max_open=max_open,
        )

    _offer(api, service, worker)
    _tell_errors(api)
    return admission


def _offer(api: FastAPI, service: Service, worker: Worker) -> None:
    """Add the four kinds of work."""
    post = partial(api.post, responses=REFUSALS, dependencies=[Depends(_only_known)])

    @post("/encode", response_class=Codes)
    async def encode(request: Request, file: UploadFile, speaker: Voice = None) -> Response:
        """Make codes of a recording: WAV, FLAC, Ogg, MP3 or AIFF."""
        return await worker.answer(request, Codes, partial(service.encode, _upload(file), speaker))

    @post("/decode", response_class=Sound)
    async def decode(request: Request, file: UploadFile, wanted: Wanted) -> Response:
        """Make a recording of codes, in their own voice, a known one, or that of a recording."""
        work = partial(service.decode, _upload(file), **wanted)
        return await worker.answer(request, Sound, work)

    @post("/convert", response_class=Sound)
    async def convert(request: Request, file: UploadFile, wanted: Wanted) -> Response:
        """Say the same in another voice: a known one, or that of a recording."""
        work = partial(service.convert, _upload(file), **wanted)
        return await worker.answer(request, Sound, work)

    @post("/units", response_class=UnitsLine)
    async def units(
        request: Request,
        file: UploadFile,
        dedup: Annotated[bool, Form(description="Collapse repeats, and add durations.")] = False,
    ) -> Response:
        """Write the codes of a recording or of a code file as phoneme-like units."""
        work = partial(service.units, _upload(file), dedup=dedup)
        return await worker.answer(request, UnitsLine, work)


def _tell_errors(api: FastAPI) -> None:
    """Answer every error with one line in JSON."""

    @api.exception_handler(VqcodecError)
    async def refused(_: Request, error: VqcodecError) -> JSONResponse:
        return _error(413 if isinstance(error, TooLongError) else 400, str(error))

    @api.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        faults = (f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
        return _error(422, "; ".join(faults))

    @api.exception_handler(StarletteHTTPException)
    async def failed(_: Request, error: HTTPException) -> JSONResponse:
        return _error(error.status_code, error.detail)

    @api.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> JSONResponse:
        return _error(500, f"this is a bug ({type(error).__name__}); the server's log has it")


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": " ".join(text.split())}, status)


def _upload(file: UploadFile) -> Upload:
    return Upload(PurePath(file.filename or "file").name, file.file)


def _size(file: IO[bytes]) -> int:
    size = file.seek(0, 2)
    file.seek(0)
    return size


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while block := file.read(BLOCK_BYTES):
            yield block
