"""What users call: recordings to codes, codes to recordings, and one voice to another.

Everything runs in windows, each with as much context as the networks can see, and on a CPU each
on one thread: that bounds the memory, and makes codes and audio the same however many files,
threads or blocks are involved.
"""

from __future__ import annotations

import itertools
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Literal, Required, TypedDict, TypeGuard, Unpack, cast, overload

import numpy as np
import torch
from torch import Tensor

from vqcodec.audio.recording import Recording, is_pair, knows_its_rate, open_recording, open_writer
from vqcodec.audio.resampling import resample_blocks, resampled_length
from vqcodec.audio.soundfiles import checked_rate
from vqcodec.errors import CodesError, RecordingWarning, SpeakerError, VqcodecError
from vqcodec.format.codes import Codes
from vqcodec.format.header import StreamMetadata
from vqcodec.format.streaming import CodesStream
from vqcodec.inference import enrolment
from vqcodec.inference.decoding import fast_blocks, wavenet_blocks
from vqcodec.inference.encoding import (
    Progress,
    code_blocks,
    is_unlike_speech,
    listened,
    live_codes,
    mean_vector,
    speaker_vectors,
)
from vqcodec.inference.loudness import followed, normalised
from vqcodec.inference.units import whole_numbers
from vqcodec.models.speaker import from_int8, guided
from vqcodec.weights import checkpoint
from vqcodec.weights.checkpoint import Checkpoint
from vqcodec.weights.registry import maker
from vqcodec.weights.voices import (
    Speaker,
    VoiceInfo,
    VoicesFile,
    check_name,
    default_path,
    models_with,
    packaged_info,
    unknown_voice,
)

Decoder = Literal["fast", "wavenet"]
BLOCK_LENGTH = 1 << 16  # samples read at a time
SILENCE = 1e-4  # -80 dB full scale, below which no level is measured
Item = str | os.PathLike[str] | BinaryIO | bytes | np.ndarray | Tensor | dict[str, Any]
Source = Item | tuple[int, np.ndarray]
Sources = list[Any] | tuple[Item, ...]


class EncodeOptions(TypedDict, total=False):
    """The keyword arguments of `Codec.encode`."""

    speaker: str | Speaker | None
    refine: bool
    on_progress: Progress | None


class DecodeOptions(TypedDict, total=False):
    """The keyword arguments of `Codec.decode`."""

    speaker: Speaker | Source | None
    decoder: Decoder | None
    seed: int
    temperature: float
    sample_rate: int | None


class ConvertOptions(TypedDict, total=False):
    """The keyword arguments of `Codec.convert`."""

    speaker: Required[Speaker | Source]
    refine: bool
    decoder: Decoder | None
    seed: int
    temperature: float


def load(
    model: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    voices: str | os.PathLike[str] | Literal[False] | None = None,
) -> Codec:
    """Load a codec.

    Args:
        model: name of a packaged model, or path of a model file; the default model when None.
        device: `auto`, `cpu` or `cuda`.
        voices: a voices file whose voices are added to the model's; when None, the one that
            `vqcodec enroll` keeps them in, if there is one; False for none.

    Raises:
        CheckpointError, SpeakerError: a file does not exist or cannot be used.
        VqcodecError: `cuda` where there is none, or another device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise VqcodecError(f"device {device}: choose auto, cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise VqcodecError("device cuda: torch sees no GPU; use device cpu")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = checkpoint.load(None if model is None else str(model))
    if voices and not os.path.exists(voices):
        raise SpeakerError(f"{voices}: no such voices file; vqcodec enroll makes one")
    enrolled = None if voices is False else VoicesFile(voices or default_path())
    return Codec(loaded, device=device, enrolled=enrolled)


class Codec:
    """A model that is ready for use.

    Args:
        loaded: a model file.
        device: `cpu` or `cuda`.
        enrolled: further voices.

    Attributes:
        name: of the model.
        config: what it is made of.
        fingerprint: 8 bytes; code files name it.
        provenance: how it was trained.
        tables: of the entropy coder, if it has them.
        voices: name -> `Speaker`.
    """

    def __init__(
        self,
        loaded: Checkpoint,
        *,
        device: str = "cpu",
        enrolled: VoicesFile | None = None,
    ) -> None:
        self.name, self.config = loaded.name, loaded.config
        self.fingerprint, self.provenance = loaded.fingerprint, loaded.provenance
        self.tables = loaded.tables
        self.device = torch.device(device)
        self.model = loaded.model.to(self.device)
        known = packaged_info() if maker(self.fingerprint) else {}
        self.voices = {
            name: Speaker(vector, name, known.get(name, VoiceInfo()))
            for name, vector in loaded.voices.items()
        }
        self._enrolled = enrolled
        if enrolled is not None:
            self.voices |= enrolled.voices(self.fingerprint)
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
    def decoders(self) -> tuple[Decoder, ...]:
        """Those the model has, the best first: `fast`, `wavenet`."""
        found: list[Decoder] = []
        if self.model.fast is not None:
            found.append("fast")
        if self.model.wavenet is not None:
            found.append("wavenet")
        return tuple(found)

    @property
    def hears_speakers(self) -> bool:
        """Whether it can tell a voice from a recording, or knows but those of a table."""
        return self.config.speaker.kind == "encoder"

    # Encoding

    @overload
    def encode(
        self, source: Source, sample_rate: int | None = None, **options: Unpack[EncodeOptions]
    ) -> Codes: ...

    @overload
    def encode(
        self, source: Sources, sample_rate: int | None = None, **options: Unpack[EncodeOptions]
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
                `training.refine.refined_code_blocks` does: slow.
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
        if _is_list(source):
            return [
                self.encode(
                    item, sample_rate, speaker=speaker, refine=refine, on_progress=on_progress
                )
                for item in source
            ]
        recording = open_recording(_to_numpy(source), sample_rate)
        gain = recording.gain()
        mark = self._own_vector(recording, gain) if speaker is None else self._mark(speaker)
        n_samples = resampled_length(recording.n_samples, recording.sample_rate, self.sample_rate)
        n_codes, n_done, loudest = -(-n_samples // self.hop_length), 0, 0.0

        def normalised_blocks() -> Iterator[np.ndarray]:
            nonlocal loudest
            for block in recording.speech(self.sample_rate, BLOCK_LENGTH, gain):
                loudest = max(loudest, float(np.abs(block).max()))
                yield block / np.float32(gain)

        blocks = normalised_blocks()
        parts: list[np.ndarray] = []
        distances: list[np.ndarray] = []
        for part in (
            self._refined(blocks, mark)
            if refine
            else code_blocks(self.model, blocks, self.device, distances=distances)
        ):
            parts.append(part)
            n_done += part.shape[1]
            if on_progress:
                on_progress(n_done / n_codes)
        if loudest < SILENCE:
            _warn(
                f"{recording.name}: is silent; if it is stereo of opposite phase, give one channel"
            )
        else:
            self._warn_if_unlike_speech(recording.name, distances)
        return Codes(
            codes=np.concatenate(parts, axis=1),
            n_samples=recording.n_samples,
            tables=self.tables,
            **self._layout(recording.sample_rate, gain, mark),
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
        try:
            array: np.ndarray = np.atleast_2d(whole_numbers(_to_numpy(units)))
        except (ValueError, OverflowError, TypeError) as error:
            raise CodesError(f"these are no units: {error}") from None
        quantizer = self.config.quantizer
        if len(array) != quantizer.n_codebooks:
            raise CodesError(
                f"units of {len(array)} codebooks, and model {self.name} has "
                f"{quantizer.n_codebooks}; give (n_codebooks, N)"
            )
        return Codes(
            array,
            n_samples=array.shape[1] * self.hop_length if n_samples is None else n_samples,
            tables=self.tables,
            **self._layout(self.sample_rate, gain, self._mark(speaker)),
        )

    def _warn_if_unlike_speech(self, name: str, distances: list[np.ndarray]) -> None:
        # Measured with the packaged models; other codebooks may be less dense.
        if not distances or maker(self.fingerprint) is None:
            return
        if is_unlike_speech(np.concatenate(distances), self.sample_rate / self.hop_length):
            _warn(
                f"{name}: does not sound like speech but like music or noise, of which the codes "
                "keep little; listen to what is decoded"
            )

    def _refined(
        self, blocks: Iterable[np.ndarray], mark: str | np.ndarray
    ) -> Iterator[np.ndarray]:
        # Imported here: what trains is not needed to encode and decode.
        from vqcodec.inference.code_search import refined_code_blocks

        vector = self._vector(self.voices[mark].vector if isinstance(mark, str) else mark)
        return refined_code_blocks(self.model, blocks, vector, tables=self.tables)

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
        0.35 s of the default model. The codes are those that `encode` gives with the same gain.

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
        mark = None if speaker is None else self._mark(speaker)
        heard, beginning = listened(map(_to_numpy, blocks), rate, hold=mark is None or gain is None)
        if gain is None:
            gain = beginning.gain()
        if mark is None:
            mark = self._own_vector(beginning, gain)
        metadata = StreamMetadata(
            n_codebooks=self.config.quantizer.n_codebooks, **self._layout(rate, gain, mark)
        )
        return CodesStream(metadata, live_codes(self.model, heard, metadata, self.device))

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
        if isinstance(who, Speaker):
            return who
        if isinstance(who, str) and who in self.voices:
            return self.voices[who]
        if isinstance(who, str | os.PathLike) and not os.path.exists(who):
            raise self.unknown_voice(str(who))
        return enrolment.heard(self.model, _reference(who, sample_rate), self.device)

    def unknown_voice(self, name: str) -> SpeakerError:
        """The error for a voice that this codec does not know: what it knows instead."""
        now = self._enrolled and self._enrolled.renamed(self.fingerprint, name)
        if now:
            return SpeakerError(f"{name}: is a voice that is called {now} now; give that name")
        if models := models_with(name, self._enrolled):
            return SpeakerError(
                f"{name}: is a voice of {', '.join(models)}, not of {self.name}: use such a "
                f"model (--model), or enroll {name} for {self.name}, too"
            )
        return unknown_voice(name, self.voices)

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
            tune: whether to refine the voice by gradient descent, as `training.tune.tune` does.
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
        recordings = [_reference(clip, sample_rate) for clip in clips]
        voice = enrolment.enrolled(
            self.model,
            name,
            recordings,
            self.device,
            known=list(self.voices.values()),
            tune=tune,
            on_progress=on_progress,
        )
        self.voices[name] = voice
        return voice

    def _mark(self, speaker: str | Speaker) -> str | np.ndarray:
        """What codes say of a voice: its name, if this codec knows it by that."""
        voice = self.speaker(speaker)
        if voice.name is not None and voice is self.voices.get(voice.name):
            return voice.name
        return voice.vector

    def _own_vector(self, recording: Recording, gain: float) -> np.ndarray:
        vectors = speaker_vectors(self.model, recording, gain=gain, device=self.device)
        return mean_vector(vectors)

    # Decoding

    @overload
    def decode(self, codes: Codes, **options: Unpack[DecodeOptions]) -> np.ndarray: ...

    @overload
    def decode(
        self, codes: list[Codes] | tuple[Codes, ...], **options: Unpack[DecodeOptions]
    ) -> list[np.ndarray]: ...

    def decode(
        self,
        codes: Codes | list[Codes] | tuple[Codes, ...],
        *,
        speaker: Speaker | Source | None = None,
        decoder: Decoder | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        sample_rate: int | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Decode to an array: as many samples as the recording had, at its level.

        Args:
            codes: of this model; or a list of these.
            speaker: another voice than the codes' own: see `speaker`. If they tell their own, the
                decoder is led away from that (`models.speaker.guided`).
            decoder: `fast` (parallel) or `wavenet` (sample by sample); the best one when None.
            seed: of the WaveNet's draws; the same seed gives the same audio.
            temperature: of the WaveNet's draws; lower is cleaner and duller.
            sample_rate: of the result in Hz; the recording's own when None.

        Returns:
            (T,) float32; values beyond [-1, 1] are possible where the recording clipped. For a
            list, a list of them.

        Raises:
            CodesError: the codes belong to another model.
            SpeakerError, AudioError: see `speaker`.
            VqcodecError: the model has no such decoder, or the seed or temperature is impossible.
        """
        if isinstance(codes, list | tuple):
            voice = None if speaker is None else self.speaker(speaker)
            return [
                self.decode(
                    item,
                    speaker=voice,
                    decoder=decoder,
                    seed=seed,
                    temperature=temperature,
                    sample_rate=sample_rate,
                )
                for item in codes
            ]
        self.check(codes)
        blocks = self._decoded(codes, [codes.codes], speaker, decoder, seed, temperature)
        rate, n_samples = _output(codes, sample_rate)
        return np.concatenate(list(resample_blocks(blocks, self.sample_rate, rate, n_samples)))

    def decode_to(
        self,
        target: Any,
        codes: Codes,
        *,
        speaker: Speaker | Source | None = None,
        decoder: Decoder | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        sample_rate: int | None = None,
        on_progress: Progress | None = None,
    ) -> float:
        """`decode` to a sound file or a binary file object, in bounded memory.

        Args:
            target: path (.wav, .flac, .ogg, .opus, .mp3) or binary file object (gets a WAV).
            on_progress: called with the share done, in [0, 1].
            codes: as in `decode`.
            speaker: as in `decode`.
            decoder: as in `decode`.
            seed: as in `decode`.
            temperature: as in `decode`.
            sample_rate: as in `decode`.

        Returns:
            The share of samples, in [0, 1], that lay beyond full scale and are clipped.

        Raises:
            AudioError: the file cannot be written; and as `decode`.
        """
        self.check(codes)
        blocks = self._decoded(codes, [codes.codes], speaker, decoder, seed, temperature)
        rate, n_samples = _output(codes, sample_rate)
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
        decoder: Decoder | None = None,
        seed: int = 0,
        temperature: float = 1.0,
        sample_rate: int | None = None,
    ) -> Iterator[np.ndarray]:
        """Decode codes while they come, in bounded memory, to what `decode` gives.

        The fast decoder answers a code when 25 codes and its look-ahead have come: 0.43 s of the
        default model, and 0.63 s in another voice, whose level takes 25 codes more to tell
        (`loudness.followed`). The WaveNet samples segments of some 310 codes at most, each when it
        has come.

        Args:
            codes: a stream, of which nothing is read before the result is iterated over.
            speaker: as in `decode`.
            decoder: as in `decode`.
            seed: as in `decode`.
            temperature: as in `decode`.
            sample_rate: as in `decode`.

        Yields:
            (T,) float32, T free; as many samples in all as the recording had.

        Raises:
            CodesError: while iterating, a chunk is damaged; and as `decode`.
        """
        metadata = codes.metadata if isinstance(codes, CodesStream) else codes
        blocks = self._decoded(
            metadata,
            codes if isinstance(codes, CodesStream) else [codes.codes],
            speaker,
            decoder,
            seed,
            temperature,
            live=True,
        )
        rate = _output_rate(metadata, sample_rate)

        def n_samples() -> int | None:
            if codes.n_samples is None:
                return None
            return resampled_length(codes.n_samples, metadata.original_sample_rate, rate)

        return resample_blocks(blocks, self.sample_rate, rate, n_samples)

    @overload
    def convert(
        self,
        source: str
        | os.PathLike[str]
        | BinaryIO
        | bytes
        | np.ndarray
        | dict[str, Any]
        | tuple[int, np.ndarray],
        sample_rate: int | None = None,
        **options: Unpack[ConvertOptions],
    ) -> np.ndarray: ...

    @overload
    def convert(
        self, source: Tensor, sample_rate: int | None = None, **options: Unpack[ConvertOptions]
    ) -> Tensor: ...

    @overload
    def convert(
        self, source: Sources, sample_rate: int | None = None, **options: Unpack[ConvertOptions]
    ) -> list[Any]: ...

    def convert(
        self,
        source: Source | Sources,
        sample_rate: int | None = None,
        *,
        speaker: Speaker | Source,
        refine: bool = False,
        decoder: Decoder | None = None,
        seed: int = 0,
        temperature: float = 1.0,
    ) -> np.ndarray | Tensor | list[Any]:
        """Say the same with another voice: `encode`, then `decode` with `speaker`.

        Args:
            source: as in `encode`.
            sample_rate: of arrays and tensors, in Hz.
            speaker: who shall say it: see `speaker`. Arrays and tensors share `sample_rate`.
            refine: as in `encode`.
            decoder: as in `decode`.
            seed: as in `decode`.
            temperature: as in `decode`.

        Returns:
            (T,) at the rate of the source: a tensor for a tensor, else an array; for a list, a
            list.

        Raises:
            AudioError, SpeakerError: as in `encode` and `decode`.
        """
        voice = self.speaker(speaker, None if knows_its_rate(speaker) else sample_rate)
        if _is_list(source):
            return [
                self.convert(
                    item,
                    sample_rate,
                    speaker=voice,
                    refine=refine,
                    decoder=decoder,
                    seed=seed,
                    temperature=temperature,
                )
                for item in source
            ]
        own = None if self.hears_speakers else voice
        codes = self.encode(cast(Source, source), sample_rate, speaker=own, refine=refine)
        samples = self.decode(
            codes, speaker=voice, decoder=decoder, seed=seed, temperature=temperature
        )
        return torch.from_numpy(samples) if isinstance(source, Tensor) else samples

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
        metadata: StreamMetadata,
        codes: Iterable[np.ndarray],
        speaker: Speaker | Source | None,
        decoder: Decoder | None,
        seed: int,
        temperature: float,
        *,
        live: bool = False,
    ) -> Iterator[np.ndarray]:
        """Blocks at the model's rate and the recording's level."""
        self.check(metadata)
        decoder = decoder or self.decoders[0]
        if decoder not in self.decoders:
            raise VqcodecError(
                f"model {self.name} has no decoder {decoder!r}; it has {', '.join(self.decoders)}"
            )
        if seed < 0 or not 0 <= temperature < math.inf:
            raise VqcodecError(
                f"seed {seed}, temperature {temperature}: the seed must be 0 or more, and the "
                "temperature 0 or more and finite"
            )
        vector = self._told(metadata, speaker)
        codes, again = itertools.tee(codes)
        reference = self._reference_blocks(metadata, again, vector, decoder, live=live)
        if decoder == "fast":
            blocks = fast_blocks(self.model, codes, vector, live=live)
        else:
            blocks = wavenet_blocks(
                self.model, codes, vector, seed=seed, temperature=temperature, live=live
            )
        layout = {"sample_rate": self.sample_rate, "hop_length": self.hop_length}
        if reference is not None:
            blocks = followed(blocks, reference, **layout)
        levelled = normalised(blocks, gain=metadata.gain, **layout)
        return (block * np.float32(metadata.gain) for block in levelled)

    def _reference_blocks(
        self,
        metadata: StreamMetadata,
        codes: Iterable[np.ndarray],
        told: Tensor,
        decoder: Decoder,
        *,
        live: bool,
    ) -> Iterator[np.ndarray] | None:
        """What the voice that spoke makes of codes, where that is known and is another thing."""
        own = self._speaker_of(metadata)
        if own is None or self.model.fast is None:
            return None
        heard = self._vector(own.vector)
        if decoder == "fast" and torch.equal(told, heard):
            return None
        return fast_blocks(self.model, codes, heard, live=live)

    def _told(self, codes: StreamMetadata, speaker: Speaker | Source | None) -> Tensor:
        """What the decoder is told of who speaks: (1, 64)."""
        own = self._speaker_of(codes)
        if speaker is not None:
            target = self._vector(self.speaker(speaker).vector)
            return target if own is None else guided(target, self._vector(own.vector))
        now = self._enrolled and self._enrolled.renamed(self.fingerprint, str(codes.speaker))
        if own is None and now:
            raise SpeakerError(
                f"these codes name the voice {codes.speaker}, which is called {now} now: give it "
                f"as --speaker {now}"
            )
        if own is None:
            raise SpeakerError(
                f"these codes name the voice {codes.speaker}, which model {self.name} does not "
                "know: load the voices file it is in (--voices), or give another --speaker"
            )
        return self._vector(own.vector)

    def _vector(self, stored: np.ndarray) -> Tensor:
        """(64,) int8 -> (1, 64) for the model."""
        return torch.from_numpy(from_int8(stored))[None].to(self.device)

    def _speaker_of(self, codes: StreamMetadata) -> Speaker | None:
        """The voice that codes carry or name; such a name is never taken for a path."""
        if isinstance(codes.speaker, np.ndarray):
            return Speaker(codes.speaker)
        return self.voices.get(codes.speaker)


def _output(codes: Codes, sample_rate: int | None) -> tuple[int, int]:
    """Rate in Hz and sample count of decoded audio."""
    rate = _output_rate(codes, sample_rate)
    return rate, resampled_length(codes.n_samples, codes.original_sample_rate, rate)


def _output_rate(codes: StreamMetadata, sample_rate: int | None) -> int:
    return (
        codes.original_sample_rate if sample_rate is None else checked_rate("output", sample_rate)
    )


def _reference(source: Source, sample_rate: int | None) -> Recording:
    if isinstance(source, Recording):
        return source
    return open_recording(_to_numpy(source), None if knows_its_rate(source) else sample_rate)


def _warn(message: str) -> None:
    warnings.warn(message, RecordingWarning, stacklevel=3)


def _is_list(source: Source | Sources) -> TypeGuard[Sources]:
    return isinstance(source, list | tuple) and not is_pair(source)


def _to_numpy(source: Any) -> Any:
    """A tensor as an array, in a pair too; all else as it is."""
    if is_pair(source):
        return tuple(map(_to_numpy, source))
    if not isinstance(source, Tensor):
        return source
    # NumPy has no bfloat16.
    held = source.float() if source.dtype == torch.bfloat16 else source
    return held.detach().cpu().numpy()
