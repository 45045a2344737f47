"""What users call: recordings to codes, codes to recordings, and one voice to another.

Everything runs in chunks, each with as much context as the networks can see, and on a CPU each
on one thread: that bounds the memory, and makes codes and audio the same however many files,
threads or blocks are involved.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, get_args, overload

import numpy as np

from vqcodec.audio import Recording, open_recording, open_writer
from vqcodec.audio.recording import knows_its_rate
from vqcodec.audio.resampling import resample_blocks, resampled_length
from vqcodec.audio.soundfiles import checked_rate
from vqcodec.errors import CodesError, SpeakerError, VqcodecError
from vqcodec.format.codes import Codes
from vqcodec.format.header import StreamMetadata
from vqcodec.format.streaming import CodesStream
from vqcodec.inference import engines, enrolment, melody
from vqcodec.inference.decoding import speech_blocks
from vqcodec.inference.encoding import Progress, listened, live_codes
from vqcodec.inference.engines import DeviceName, Engine, EngineName
from vqcodec.inference.recordings import encode_recording
from vqcodec.inference.sources import (
    ConvertCall,
    DecodeCall,
    EncodeCall,
    Sound,
    Source,
    Sources,
    is_list,
    is_tensor,
    open_reference,
    to_numpy,
)
from vqcodec.inference.speakers import Speakers
from vqcodec.inference.units import unit_array
from vqcodec.models import DecoderName
from vqcodec.models.interfaces import DecodeKeywords, DecodeOptions, SynthesisKeywords
from vqcodec.models.speaker_vector import from_int8
from vqcodec.weights import model_file
from vqcodec.weights.model_file import ModelFile
from vqcodec.weights.registry import maker
from vqcodec.weights.voices import Speaker, VoicesFile, check_name, default_path

if TYPE_CHECKING:
    from torch import Tensor

    from vqcodec.inference.engines.pytorch import TorchEngine
    from vqcodec.models.vqvae import VQVAE


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


class Codec:
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

    def __init__(self, file: ModelFile, engine: Engine, enrolled: VoicesFile | None = None) -> None:
        self.name, self.config = file.name, file.config
        self.fingerprint, self.provenance = file.fingerprint, file.provenance
        self.tables = file.tables
        self.engine, self.device, self._file = engine, engine.device, file
        self._speakers = Speakers(file, engine, enrolled)
        self.sample_rate, self.hop_length = self.config.sample_rate, self.config.hop_length

    def __repr__(self) -> str:
        quantizer = self.config.quantizer
        books = f"{quantizer.n_codebooks} x " if quantizer.n_codebooks > 1 else ""
        bits = (quantizer.codebook_size - 1).bit_length()
        return (
            f"<Codec {self.name}: {self.sample_rate} Hz, "
            f"{self.sample_rate / self.hop_length:g} codes/s of {books}{bits} bits, "
            f"{' and '.join(self.decoders)} decoder, {len(self.voices)} voices, {self.device}>"
        )

    @property
    def voices(self) -> dict[str, Speaker]:
        """Those it knows, by name."""
        return self._speakers.voices

    @property
    def decoders(self) -> tuple[DecoderName, ...]:
        """Those the model has, the best first: `fast`, `wavenet`."""
        return self.config.decoders

    @property
    def hears_speakers(self) -> bool:
        """Whether it can tell a voice from a recording, or knows but those of a table."""
        return self.config.speaker.kind == "encoder"

    @property
    def model(self) -> VQVAE:
        """The networks in PyTorch, which is imported when they are first asked for."""
        return self._torch.model

    @cached_property
    def _torch(self) -> TorchEngine:
        """The engine for what follows gradients."""
        if self.engine.name == "torch":
            return cast("TorchEngine", self.engine)
        return engines.torch_engine(self._file, self.device)

    # Encoding

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
                (channels, T) with values in [-1, 1]; pair (rate, array) or example of a data set
                (see `audio.open_recording`); or a list of these, of any lengths.
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
        heard = melody.heard(self.engine, recording, gain)
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
            is_packaged=maker(self.fingerprint) is not None,
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

    # Speakers

    def speaker(self, who: Speaker | Source, sample_rate: int | None = None) -> Speaker:
        """Find a voice by its name, or hear it in a reference recording.

        Args:
            who: a voice's name, a recording as in `encode`, or a `Speaker`.
            sample_rate: of an array or tensor, in Hz.

        Raises:
            SpeakerError: neither a known voice nor a recording, a silent one, or the model has
                only a table.
            AudioError: the recording cannot be read.

        Warns:
            RecordingWarning: the recording has less than 3 s of sound.
        """
        return self._speakers.find(who, sample_rate)

    def unknown_voice(self, name: str) -> SpeakerError:
        """The error for a voice that this codec does not know: what it knows instead."""
        return self._speakers.unknown(name)

    def enroll(
        self,
        name: str,
        clips: Sequence[Source],
        *,
        sample_rate: int | None = None,
        tune: bool = False,
        on_progress: Progress | None = None,
    ) -> Speaker:
        """A new voice from recordings of one person, half a minute or more in all.

        The voice is added to `voices`; `VoicesFile.add` keeps it.

        Args:
            name: of the voice.
            clips: recordings as in `encode`, or what `open_recording` opened.
            sample_rate: of the arrays and tensors among them, in Hz.
            tune: whether to refine the voice by gradient descent, as `voice_tuning.tune` does.
            on_progress: of the tuning, called with the share done, in [0, 1].

        Raises:
            SpeakerError: an impossible name, no clips, silent ones or too short ones to tune by,
                or the model has only a table.
            AudioError: a clip cannot be read.

        Warns:
            RecordingWarning: the clips have less than 10 s of sound, or are unlike each other.
        """
        check_name(name)
        if not clips or isinstance(clips, str | os.PathLike):
            raise SpeakerError(f"{name}: give a list of recordings to enroll from")
        recordings = [open_reference(clip, sample_rate) for clip in clips]
        voice = enrolment.enrolled(
            self.engine,
            name,
            recordings,
            known=list(self.voices.values()),
            tune=self._tuned(on_progress) if tune else None,
        )
        self.voices[name] = voice
        return voice

    def _tuned(
        self, on_progress: Progress | None
    ) -> Callable[[Sequence[Recording], np.ndarray], np.ndarray]:
        engine = self._torch  # says which extra is missing, if one is
        from vqcodec.inference import voice_tuning

        return lambda recordings, vector: (
            voice_tuning.tune(engine, recordings, vector, on_progress=on_progress).vector
        )

    # Decoding

    @overload
    def decode(self, codes: Codes, **options: Unpack[DecodeCall]) -> np.ndarray: ...

    @overload
    def decode(
        self, codes: list[Codes] | tuple[Codes, ...], **options: Unpack[DecodeCall]
    ) -> list[np.ndarray]: ...

    def decode(
        self,
        codes: Codes | list[Codes] | tuple[Codes, ...],
        *,
        speaker: Speaker | Source | None = None,
        **options: Unpack[DecodeKeywords],
    ) -> np.ndarray | list[np.ndarray]:
        """Decode to an array: as many samples as the recording had, at its level.

        Args:
            codes: of this model; or a list of these.
            speaker: another voice than the codes' own: see `speaker`. If they tell their own, the
                decoder is led away from that (`models.speaker_vector.guided`).
            options: `decoder`, `seed`, `temperature`, `sample_rate`, `pitch` and `melody`, see
                `DecodeOptions`.

        Returns:
            (T,) float32; values beyond [-1, 1] are possible where the recording clipped. For a
            list, a list of them.

        Raises:
            CodesError: the codes belong to another model, or do not tell a pitch to change.
            SpeakerError, AudioError: see `speaker`.
            VqcodecError: the model has no such decoder, or it knows nothing of the pitch that
                shall change, or an option is impossible.
        """
        how = DecodeOptions(**options)
        if isinstance(codes, list | tuple):
            voice = None if speaker is None else self.speaker(speaker)
            return [self.decode(item, speaker=voice, **options) for item in codes]
        blocks, rate = self._decoded(codes, speaker, how)
        n_samples = resampled_length(codes.n_samples, codes.original_sample_rate, rate)
        return np.concatenate(list(resample_blocks(blocks, self.sample_rate, rate, n_samples)))

    def decode_to(
        self,
        target: Any,
        codes: Codes,
        *,
        speaker: Speaker | Source | None = None,
        on_progress: Progress | None = None,
        **options: Unpack[DecodeKeywords],
    ) -> float:
        """`decode` to a sound file or a binary file object, in bounded memory.

        Args:
            target: path (.wav, .flac, .ogg, .opus, .mp3) or binary file object (gets a WAV).
            codes: as in `decode`, like what follows.
            speaker: another voice.
            on_progress: called with the share done, in [0, 1].
            options: how to decode.

        Returns:
            The share of samples, in [0, 1], that lay beyond full scale and are clipped.

        Raises:
            AudioError: the file cannot be written; and as `decode`.
        """
        blocks, rate = self._decoded(codes, speaker, DecodeOptions(**options))
        n_samples = resampled_length(codes.n_samples, codes.original_sample_rate, rate)
        total, done = codes.n_codes * self.hop_length, 0
        with open_writer(
            target, model_rate=self.sample_rate, output_rate=rate, n_samples=n_samples
        ) as writer:
            for block in blocks:
                writer.write(block)
                done += len(block)
                if on_progress:
                    on_progress(done / total)
        return writer.n_clipped / n_samples

    def stream_decode(
        self,
        codes: CodesStream | Codes,
        *,
        speaker: Speaker | Source | None = None,
        **options: Unpack[DecodeKeywords],
    ) -> Iterator[np.ndarray]:
        """Decode codes while they come, in bounded memory, to what `decode` gives.

        The fast decoder answers a code when 25 codes and its look-ahead have come: 0.43 s of the
        default model, and 0.63 s in another voice, whose level takes 25 codes more to tell
        (`loudness.followed`). The WaveNet samples segments of some 310 codes at most, each when it
        has come.

        Args:
            codes: a stream, of which nothing is read before the result is iterated over.
            speaker: as in `decode`.
            options: as in `decode`.

        Yields:
            (T,) float32, T free; as many samples in all as the recording had.

        Raises:
            CodesError: while iterating, a chunk is damaged; and as `decode`.
        """
        blocks, rate = self._decoded(codes, speaker, DecodeOptions(**options), live=True)

        def n_samples() -> int | None:
            if codes.n_samples is None:
                return None
            own_rate = _metadata(codes).original_sample_rate
            return resampled_length(codes.n_samples, own_rate, rate)

        return resample_blocks(blocks, self.sample_rate, rate, n_samples)

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
        DecodeOptions(**options)  # what is wrong with them is said before hours of encoding
        voice = self.speaker(speaker, None if knows_its_rate(speaker) else sample_rate)
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

    def check(self, codes: StreamMetadata) -> None:
        """Refuse codes of another model.

        Raises:
            CodesError: naming both models, codes that only claim to be of this one, or no codes.
        """
        if not isinstance(codes, StreamMetadata):
            raise CodesError(
                f"no codes but {type(codes).__name__}: read a file of them with Codes.load, and "
                f"make them of units with codec.codes"
            )
        if codes.fingerprint != self.fingerprint:
            raise CodesError(
                f"these codes were made by model {codes.fingerprint.hex()}, and {self.name} is "
                f"{self.fingerprint.hex()}: decode with the model that encoded (--model)"
            )
        quantizer = self.config.quantizer
        made = quantizer.n_codebooks, quantizer.codebook_size, self.sample_rate, self.hop_length
        if (codes.n_codebooks, codes.codebook_size, codes.sample_rate, codes.hop_length) != made:
            raise CodesError(
                f"these codes name model {self.name} but are not laid out as it does: they are "
                "damaged; encode the recording again"
            )

    def _decoded(
        self,
        codes: Codes | CodesStream,
        speaker: Speaker | Source | None,
        options: DecodeOptions,
        *,
        live: bool = False,
    ) -> tuple[Iterator[np.ndarray], int]:
        """Blocks at the model's rate and the recording's level, and the rate that is asked for."""
        metadata = _metadata(codes)
        self.check(metadata)
        decoder = options.decoder or self.decoders[0]
        if decoder not in self.decoders:
            raise VqcodecError(
                f"model {self.name} has no decoder {decoder!r}; it has {', '.join(self.decoders)}"
            )
        voice, own = self._speakers.told(metadata, speaker, options), self._speakers.own(metadata)
        if options.needs_pitch and not self._file.is_told(decoder, melody.KIND):
            raise VqcodecError(
                f"pitch and melody are nothing to the {decoder} decoder of {self.name}, which has "
                "not learnt them: choose another decoder, or leave them out"
            )
        blocks = speech_blocks(
            self.engine,
            melody.rows(codes, self.config),
            voice,
            replace(options, decoder=decoder),
            own=own,
            gain=metadata.gain,
            live=live,
        )
        rate = options.sample_rate
        return blocks, (
            metadata.original_sample_rate if rate is None else checked_rate("output", rate)
        )


def _metadata(codes: Codes | CodesStream) -> StreamMetadata:
    return codes.metadata if isinstance(codes, CodesStream) else codes
