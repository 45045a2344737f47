"""What users call: recordings to codes, codes to recordings, and one voice to another.

Everything runs in chunks, each with as much context as the networks can see, and on a CPU each
on one thread: that bounds the memory, and makes codes and audio the same however many files,
threads or blocks are involved.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, get_args, overload

import numpy as np

from vqcodec.audio import open_recording
from vqcodec.audio.soundfiles import checked_rate
from vqcodec.errors import SpeakerError, VqcodecError
from vqcodec.format.codes import Codes
from vqcodec.format.header import StreamMetadata
from vqcodec.format.streaming import CodesStream
from vqcodec.inference import engines, melody
from vqcodec.inference.encoding import Progress, encode_recording, listened, live_codes
from vqcodec.inference.engines import DeviceName, EngineName
from vqcodec.inference.sources import (
    ConvertCall,
    EncodeCall,
    Sound,
    Source,
    Sources,
    is_list,
    is_tensor,
    to_numpy,
)
from vqcodec.inference.synthesis import Synthesizer
from vqcodec.inference.units import NOBODY, unit_array
from vqcodec.models.interfaces import DecodeOptions, SynthesisKeywords
from vqcodec.models.speaker_vector import from_int8
from vqcodec.weights import model_file
from vqcodec.weights.registry import maker
from vqcodec.weights.voices import Speaker, VoicesFile, default_path

if TYPE_CHECKING:
    from torch import Tensor


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    engine: str = "auto",
    voices: str | os.PathLike[str] | Literal[False] | None = None,
) -> Codec:
    """Load a codec.

    Args:
        model: name of a packaged model, path of a model file, or `hf://owner/name@revision` of
            one on the Hugging Face Hub; the default model when None.
        device: `auto`, `cpu` or `cuda`.
        engine: `onnx`, `torch`, or `auto`: onnxruntime on a CPU, torch on a GPU.
        voices: a voices file whose voices are added to the model's; when None, the one that
            `vqcodec enroll` keeps them in, if there is one; False for none.

    Raises:
        CheckpointError, SpeakerError: a file does not exist or cannot be used.
        VqcodecError: `cuda` where there is none, another device or engine, or torch is not there.
    """
    for kind, given, known in (("device", device, DeviceName), ("engine", engine, EngineName)):
        if given not in get_args(known):
            raise VqcodecError(f"{kind} {given}: choose {' or '.join(get_args(known))}")
    file = model_file.read(None if model is None else str(model))
    if voices and not os.path.exists(voices):
        raise SpeakerError(f"{voices}: no such voices file; vqcodec enroll makes one")
    enrolled = None if voices is False else VoicesFile(voices or default_path())
    started = engines.start(file, device=cast(DeviceName, device), engine=cast(EngineName, engine))
    return Codec(file, started, enrolled)


class Codec(Synthesizer):
    """A model that is ready for use.

    Args:
        file: of the model.
        engine: of the model.
        enrolled: further voices.

    Attributes:
        name: of the model.
        config: what it is made of.
        fingerprint: 8 bytes; code files name it.
        provenance: how it was trained.
        tables: of the entropy coder, if it has them.
        engine: what runs the networks.
        device: `cpu` or `cuda`.
    """

    @overload
    def encode(
        self, source: Source, sample_rate: int | None = None, **options: Unpack[EncodeCall]
    ) -> Codes: ...

    @overload
    def encode(
        self, source: Sources, sample_rate: int | None = None, **options: Unpack[EncodeCall]
    ) -> list[Codes]: ...

    def encode(
        self,
        source: Source | Sources,
        sample_rate: int | None = None,
        *,
        speaker: str | Speaker | None = None,
        refine: bool = False,
        on_progress: Progress | None = None,
    ) -> Codes | list[Codes]:
        """Encode a recording, or a list of recordings.

        Args:
            source: path, bytes or binary file object; array or tensor of shape (T,) or
                (channels, T) with values in [-1, 1]; pair (rate, array), example of a data set,
                or what `audio.open_recording` opened; or a list of these, of any lengths.
            sample_rate: of arrays and tensors, in Hz.
            speaker: a known voice that the codes shall name. By default they carry the
                recording's own 64-byte speaker vector.
            refine: whether to search for codes that the fast decoder makes more of, as
                `code_search.searched_blocks` does: slow.
            on_progress: called with the share done, in [0, 1]; of a list, for each recording.

        Returns:
            `Codes`; for a list, a list of them.

        Raises:
            AudioError: the recording cannot be read.
            SpeakerError: `speaker` is unknown, or is needed (a model with a speaker table).
            VqcodecError: the model is not one whose codes can be refined.

        Warns:
            RecordingWarning: the recording was never finished, is silent, or is unlike speech.
        """
        if is_list(source):
            return [
                self.encode(
                    item, sample_rate, speaker=speaker, refine=refine, on_progress=on_progress
                )
                for item in source
            ]
        recording = open_recording(to_numpy(source), sample_rate)
        gain = recording.gain()
        speakers = self._speakers
        mark = speakers.heard_in(recording, gain) if speaker is None else speakers.mark(speaker)
        is_told = speaker is not NOBODY
        heard = melody.heard(self.engine, recording, gain) if is_told else melody.Heard()
        search = None
        if refine:
            engine = self._torch  # says which extra is missing, if one is
            from vqcodec.inference.code_search import searched_blocks

            vector = from_int8(self.voices[mark].vector if isinstance(mark, str) else mark)
            search = partial(
                searched_blocks,
                engine,
                voice=melody.Voice(vector, heard.pitch),
                tables=self.tables,
                contour=heard.contour,
            )
        codes = encode_recording(
            self.engine,
            recording,
            gain,
            search=search,
            packaged=maker(self.fingerprint),
            on_progress=on_progress,
        )
        return Codes(
            codes=codes,
            n_samples=recording.n_samples,
            symbols=heard.symbols,
            tables=self.tables,
            **self._layout(recording.sample_rate, gain, mark),
            streams=heard.streams,
        )

    def codes(
        self,
        units: str | Sequence[Any] | np.ndarray | Tensor,
        *,
        speaker: str | Speaker,
        n_samples: int | None = None,
        gain: float = 1.0,
    ) -> Codes:
        """Make codes of units that another program has written, such as a language model.

        Args:
            units: integers in [0, codebook_size), (N,) or (n_codebooks, N), or a text of them with
                spaces between; repeats in full, as `units.read_units` gives them.
            speaker: who says it.
            n_samples: of the recording at the model's rate; N * hop_length when None.
            gain: of the recording, see `Codes`.

        Returns:
            What `decode` makes audible.

        Raises:
            CodesError: the units are no integers or out of range, of another number of codebooks,
                or no recording of n_samples has so many.
            SpeakerError: as `encode`.
        """
        array = unit_array(to_numpy(units), self.config.quantizer.n_codebooks, self.name)
        return Codes(
            array,
            n_samples=array.shape[1] * self.hop_length if n_samples is None else n_samples,
            tables=self.tables,
            **self._layout(self.sample_rate, gain, self._speakers.mark(speaker)),
        )

    def stream_encode(
        self,
        blocks: Iterable[Any],
        sample_rate: int | None = None,
        *,
        speaker: str | Speaker | None = None,
        gain: float | None = None,
    ) -> CodesStream:
        """Encode a recording while it is being made, in bounded memory.

        A code comes when the encoder's look-ahead and a window of 25 codes have been heard:
        0.35 s of the default model. The codes are those that `encode` gives with the same gain. A
        stream of pitch, which takes 0.04 s more, is about the mean pitch of the speaker, or where
        that is not known, of what is held back.

        Args:
            blocks: arrays or tensors of shape (T,) or (channels, T), T free, values in [-1, 1].
            sample_rate: of the blocks in Hz; the model's when None.
            speaker: a known voice that the codes shall name; when None, the voice of the first
                four seconds of sound, for which they are held back (see `encoding.listened`).
            gain: the level of the recording, as `Codes.gain`; when None, that of the first four
                seconds of sound, for which they are held back.

        Returns:
            Codes to iterate over; they can be written to a pipe or decoded by `stream_decode`.

        Raises:
            AudioError: here or while iterating, a block is no audio.
            SpeakerError: as `encode`.
        """
        rate = self.sample_rate if sample_rate is None else checked_rate("stream", sample_rate)
        voice = None if speaker is None else self._speakers.find(speaker)
        mark = None if voice is None else self._speakers.mark(voice)
        hertz = None if voice is None else voice.info.pitch_hz
        listens = self.config.pitch is not None and hertz is None
        hold = mark is None or gain is None or listens
        heard, beginning = listened(map(to_numpy, blocks), rate, hold=hold)
        if gain is None:
            gain = beginning.gain()
        if mark is None:
            mark = self._speakers.heard_in(beginning, gain)
        metadata = StreamMetadata(
            n_codebooks=self.config.quantizer.n_codebooks,
            **self._layout(rate, gain, mark),
            streams=melody.heard_live(self.engine, beginning, gain, hertz),
        )
        return CodesStream(metadata, live_codes(self.engine, heard, metadata))

    def _layout(self, rate: int, gain: float, mark: str | np.ndarray) -> dict[str, Any]:
        return {
            "codebook_size": self.config.quantizer.codebook_size,
            "sample_rate": self.sample_rate,
            "hop_length": self.hop_length,
            "fingerprint": self.fingerprint,
            "original_sample_rate": rate,
            "gain": gain,
            "speaker": mark,
        }

    @overload
    def convert(
        self, source: Tensor, sample_rate: int | None = None, **options: Unpack[ConvertCall]
    ) -> Tensor: ...

    @overload
    def convert(
        self, source: Sources, sample_rate: int | None = None, **options: Unpack[ConvertCall]
    ) -> list[Any]: ...

    @overload
    def convert(
        self, source: Sound, sample_rate: int | None = None, **options: Unpack[ConvertCall]
    ) -> np.ndarray: ...

    def convert(
        self,
        source: Source | Sources,
        sample_rate: int | None = None,
        *,
        speaker: Speaker | Source,
        refine: bool = False,
        **options: Unpack[SynthesisKeywords],
    ) -> np.ndarray | Tensor | list[Any]:
        """Say the same with another voice: `encode`, then `decode` with `speaker`.

        Args:
            source: as in `encode`.
            sample_rate: of arrays and tensors, in Hz.
            speaker: who shall say it: see `speaker`. Arrays and tensors share `sample_rate`.
            refine: as in `encode`.
            options: as in `decode`.

        Returns:
            (T,) at the rate of the source: a tensor for a tensor, else an array; for a list, a
            list.

        Raises:
            AudioError, SpeakerError: as in `encode` and `decode`.
        """
        how = DecodeOptions(**options)
        voice = self.speaker(speaker, sample_rate)
        self.check_options(how, voice)
        if is_list(source):
            return [
                self.convert(item, sample_rate, speaker=voice, refine=refine, **options)
                for item in source
            ]
        own = None if self.hears_speakers else voice
        codes = self.encode(cast(Source, source), sample_rate, speaker=own, refine=refine)
        samples = self.decode(codes, speaker=voice, **options)
        if is_tensor(source):
            from torch import from_numpy

            return from_numpy(samples)
        return samples
