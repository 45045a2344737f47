"""The page of `vqcodec studio`: a recording seen, encoded, and heard in any voice."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from fastapi import FastAPI

from vqcodec.audio import Recording, load, open_recording
from vqcodec.codec import Codec
from vqcodec.errors import SpeakerError, VqcodecError
from vqcodec.format.codes import Codes
from vqcodec.inference.wavenet import announced
from vqcodec.serving import pictures
from vqcodec.serving.service import check_seconds, told
from vqcodec.serving.sessions import CancelledError, Sessions
from vqcodec.weights.voices import Speaker, check_name

OWN_VOICE = "the recording's own voice"
SHOWN_UNITS = 60
# The file as it came, so that its samples are read by us; and nothing that shares it elsewhere.
LISTENING: dict[str, Any] = {"type": "filepath", "buttons": ["download"]}
Made = TypeVar("Made")


@dataclass(frozen=True)
class Desk:
    """What a visitor has at hand, until the page is closed.

    Attributes:
        name: of the recording or code file, without its suffix.
        codes: of it.
        voices: that were enrolled here, by name.
    """

    name: str = ""
    codes: Codes | None = None
    voices: dict[str, Speaker] = field(default_factory=dict)


Shown = tuple[Desk, str, str, Any]
"""The desk; and of its codes, a picture, a description and the file."""


def _in_turn(method: Callable[..., Made]) -> Callable[..., Made]:
    """One after another, with errors that a visitor can mend, and what is cancelled, as a line.

    Of what is cancelled gradio is rid at once, but its thread works on until it is next asked.
    """

    @functools.wraps(method)
    def answered(studio: Studio, *arguments: Any, **keywords: Any) -> Made:
        try:
            with studio.turn:
                return method(studio, *arguments, **keywords)
        except CancelledError:
            raise gr.Error("Cancelled.", title="", duration=3, print_exception=False) from None
        except VqcodecError as error:
            raise gr.Error(_without_folders(str(error)), print_exception=False) from None

    return answered


class Studio:
    """What the buttons do. One thing at a time for all visitors: each takes all cores.

    Files in `folder` are gone when their visitors are.
    """

    def __init__(self, codec: Codec, folder: Path, max_seconds: float) -> None:
        self.codec, self.max_seconds = codec, max_seconds
        self.sessions, self.turn = Sessions(folder), threading.Lock()

    @_in_turn
    def encode(
        self,
        path: str | None,
        desk: Desk,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Shown:
        """Encode a recording, or clear the desk of it."""
        if path is None:
            return self.cleared(desk)[:4]
        session = self._session(request)
        self.sessions.keep(session, path)
        recording = self._opened(path)
        on_progress = self._on_progress(session, progress, "encoding")
        codes = _warned(lambda: self.codec.encode(recording, on_progress=on_progress))
        samples = load(recording, pictures.RATE)
        on_progress(1.0)  # nothing is written for who has left meanwhile
        return self._shown(replace(desk, name=Path(path).stem, codes=codes), samples, request)

    @_in_turn
    def open(self, path: str, desk: Desk, request: gr.Request) -> Shown:
        """Open a code file."""
        self.sessions.keep(self._session(request), path)
        codes = Codes.load(path, tables=self.codec.tables)
        self.codec.check(codes)
        check_seconds(path, codes.duration_s, self.max_seconds)
        return self._shown(replace(desk, name=Path(path).stem, codes=codes), None, request)

    @_in_turn
    def decode(
        self,
        desk: Desk,
        voice: str,
        decoder: Any,
        pitch: float,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[str, str, Any]:
        """Decode what is on the desk; `voice` is a name, or "" for the codes' own.

        Returns paths of the sound; its picture; and its path once more, to be downloaded.
        """
        if desk.codes is None:
            raise VqcodecError(
                "nothing to hear yet; record, drop or open something, and wait for its codes"
            )
        codes, session = desk.codes, self._session(request)
        speaker = None if not voice else self._voices(desk)[voice]
        shift = f"{pitch:+g}" if pitch else ""
        name = ".".join(filter(None, (desk.name, voice, decoder, shift)))
        target = self.sessions.folder(session) / f"{name}.wav"
        on_progress = self._on_progress(session, progress, "decoding")
        told = "compiling the sampler, once: some seconds, before which Cancel stops nothing"
        with announced(decoder, self.codec.device, lambda: progress(0.0, desc=told)):
            # A file of ours: arrays that are no int16 come out at another level.
            self.codec.decode_to(
                target,
                codes,
                speaker=speaker,
                decoder=decoder,
                pitch=float(pitch),
                on_progress=on_progress,
            )
        drawn = pictures.picture(load(target, pictures.RATE), None, codes.duration_s)
        return str(target), drawn, gr.update(value=str(target), interactive=True)

    @_in_turn
    def enroll(
        self, path: str | None, name: str, desk: Desk, request: gr.Request
    ) -> tuple[Desk, Any]:
        """Make a voice of a recording, for this visitor alone; returns the desk and the choice."""
        if path is None:
            raise SpeakerError("no recording to enroll from; record or drop one")
        self.sessions.keep(self._session(request), path)
        name = check_name(name.strip())
        if name in self._voices(desk):
            raise SpeakerError(f"{name}: is a voice already; choose another name")
        recording = self._opened(path)
        try:
            voice = _warned(lambda: self.codec.enroll(name, [recording]))
        finally:
            self.codec.voices.pop(name, None)  # which is everybody's
        desk = replace(desk, voices={**desk.voices, name: voice})
        return desk, gr.update(choices=self.choices(desk), value=name)

    def cancel(self, request: gr.Request) -> None:
        """Stop what the visitor has begun."""
        self.sessions.cancel(self._session(request))

    def leave(self, request: gr.Request) -> None:
        """Keep nothing of a visitor who has closed the page."""
        self.sessions.end(self._session(request))

    def choices(self, desk: Desk) -> list[tuple[str, str]]:
        """The voices that can be chosen: what to show, and the name."""
        described = {name: str(voice.info) for name, voice in self._voices(desk).items()}
        named = [(": ".join(filter(None, (name, told))), name) for name, told in described.items()]
        return [(OWN_VOICE, ""), *named]

    def _voices(self, desk: Desk) -> dict[str, Speaker]:
        return {**desk.voices, **dict(sorted(self.codec.voices.items()))}

    def _session(self, request: gr.Request) -> str:
        assert request.session_hash is not None
        return request.session_hash

    def _on_progress(
        self, session: str, progress: gr.Progress, what: str
    ) -> Callable[[float], None]:
        stop = self.sessions.begin(session)

        def move(share: float) -> None:
            if stop.is_set():
                raise CancelledError
            progress(share, desc=what)

        move(0.0)
        return move

    def _opened(self, path: str) -> Recording:
        recording = open_recording(path)
        check_seconds(path, recording.duration_s, self.max_seconds)
        return recording

    def cleared(self, desk: Desk) -> tuple[Desk, str, str, Any, None, str, Any, None]:
        """What is shown before something is: nothing, and of the desk nothing but the voices."""
        nothing = gr.update(value=None, interactive=False)
        return replace(desk, codes=None), "", "", nothing, None, "", nothing, None

    def _shown(self, desk: Desk, samples: np.ndarray | None, request: gr.Request) -> Shown:
        codes = desk.codes
        assert codes is not None
        target = self.sessions.folder(self._session(request)) / f"{desk.name}.codes"
        codes.save(target)
        drawn = pictures.picture(samples, codes.codes, codes.duration_s)
        download = gr.update(value=str(target), interactive=True)
        return desk, drawn, _description(codes), download


def _warned(work: Callable[[], Made]) -> Made:
    made, warnings = told(work)
    for text in warnings:
        gr.Warning(_without_folders(text))
    return made


def _without_folders(text: str) -> str:
    """A message whose files are called by their names, wherever the server keeps them."""
    return " ".join(Path(word).name if word.startswith("/") else word for word in text.split(" "))


def _description(codes: Codes) -> str:
    """How many codes there are, what they take, and the first of them."""
    bits = (codes.codebook_size - 1).bit_length()
    books = f"{codes.n_codebooks} x " if codes.n_codebooks > 1 else ""
    first = " ".join(map(str, codes.codes[0][:SHOWN_UNITS]))
    more = " …" if codes.n_codes > SHOWN_UNITS else ""
    return (
        f"**{codes.bits_per_second / 1000:.2f} kbit/s**: {codes.duration_s:.2f} s in "
        f"{len(codes.to_bytes())} bytes; {codes.n_codes} codes of {books}{bits} bits, "
        f"{codes.sample_rate / codes.hop_length:g} a second\n\n`{first}{more}`"
    )


def page(studio: Studio) -> gr.Blocks:
    """The page, for visitors who each have a desk of their own."""
    codec = studio.codec
    at_once: dict[str, Any] = {"queue": False, "api_visibility": "private"}
    working: dict[str, Any] = {
        "concurrency_id": "codec",
        "concurrency_limit": 1,
        "api_visibility": "private",
    }
    with gr.Blocks(title="vqcodec studio", analytics_enabled=False) as blocks:
        desk = gr.State(Desk())
        decoders = list(codec.decoders)
        gr.Markdown(f"# vqcodec studio\n{_summary(codec)}")
        with gr.Row():
            with gr.Column():
                recording = gr.Audio(label="A recording", elem_id="recording", **LISTENING)
                code_file = gr.File(
                    label="or a code file", file_types=[".codes"], height=140, elem_id="code-file"
                )
            with gr.Column():
                voice = gr.Dropdown(
                    studio.choices(Desk()), value="", label="Voice", elem_id="voice"
                )
                pitch = gr.Slider(
                    -12,
                    12,
                    0,
                    step=1,
                    label="Higher by so many semitones",
                    visible=codec.config.pitch is not None,
                    elem_id="pitch",
                )
                decoder = gr.Radio(decoders, value=decoders[0], label="Decoder", elem_id="decoder")
                with gr.Row():
                    hear = gr.Button("Hear it", variant="primary", elem_id="hear")
                    cancel = gr.Button("Cancel", variant="stop", elem_id="cancel")
                sound = gr.Audio(label="Decoded", interactive=False, elem_id="sound", **LISTENING)
        with gr.Row():
            with gr.Column():
                drawn = gr.HTML(elem_id="drawn")
                described = gr.Markdown(elem_id="described")
                codes_button = gr.DownloadButton("Download .codes", interactive=False)
            with gr.Column():
                sound_drawn = gr.HTML(elem_id="sound-drawn")
                sound_button = gr.DownloadButton("Download .wav", interactive=False)
        reference, name, enroll = _enrollment(visible=codec.hears_speakers)
        sounding = [sound, sound_drawn, sound_button]
        coded = [desk, drawn, described, codes_button]
        begun: list[Any] = [
            hear.click(studio.decode, [desk, voice, decoder, pitch], sounding, **working),
            enroll.click(studio.enroll, [reference, name, desk], [desk, voice], **working),
        ]
        for load_it, work, given, other in (
            (recording.input, studio.encode, recording, code_file),
            (code_file.upload, studio.open, code_file, recording),
        ):
            clearing = load_it(studio.cleared, desk, [*coded, *sounding, other], **at_once)
            begun.append(clearing.then(work, [given, desk], coded, **working))
        cancel.click(studio.cancel, cancels=begun, **at_once)
        blocks.unload(studio.leave)
    return blocks


def _enrollment(*, visible: bool) -> tuple[gr.Audio, gr.Textbox, gr.Button]:
    """The recording, name and button of a new voice."""
    with gr.Accordion(
        "Another voice, for as long as this page is open", open=False, visible=visible
    ):
        reference = gr.Audio(label="Half a minute of one person", elem_id="reference", **LISTENING)
        name = gr.Textbox(label="Name", elem_id="name")
        return reference, name, gr.Button("Enroll", elem_id="enroll")


def _summary(codec: Codec) -> str:
    quantizer = codec.config.quantizer
    return (
        f"Model {codec.name}: {codec.sample_rate / codec.hop_length:g} codes a second, of "
        f"{quantizer.codebook_size}. What is dropped here stays on this server while the page is "
        "open, and is then removed."
    )


def app(studio: Studio, *, max_bytes: int) -> FastAPI:
    """The ASGI application, for uploads of so many bytes."""
    # Of the system, so that no font is fetched from elsewhere.
    theme = gr.themes.Default(font=("ui-sans-serif", "sans-serif"), font_mono=("monospace",))
    return gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page(studio),
        path="/",
        max_file_size=max_bytes,
        theme=theme,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )
