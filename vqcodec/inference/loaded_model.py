"""A model that is ready for use: what it is, which voices it knows, and whose codes it takes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np

from vqcodec.audio import Recording
from vqcodec.errors import CodesError, SpeakerError, VqcodecError
from vqcodec.format.header import StreamMetadata
from vqcodec.inference import engines, enrolment
from vqcodec.inference.encoding import Progress
from vqcodec.inference.engines import Engine
from vqcodec.inference.sources import Source, open_reference
from vqcodec.inference.speakers import Speakers
from vqcodec.models import DecoderChoice, DecoderName
from vqcodec.weights.measures import best_first
from vqcodec.weights.model_file import ModelFile
from vqcodec.weights.voices import Speaker, VoicesFile, check_name

if TYPE_CHECKING:
    from vqcodec.inference.engines.pytorch import TorchEngine
    from vqcodec.models.vqvae import VQVAE


class LoadedModel:
    """What `Codec` has but encoding and decoding; arguments and attributes are its."""

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
        """Those the model has, the best by its measures first: `fast`, `wavenet`."""
        return best_first(self.config, self.provenance)

    def decoder(self, choice: DecoderChoice) -> DecoderName:
        """The decoder of that name; `auto` is the best.

        Raises:
            VqcodecError: the model has no such decoder.
        """
        if choice == "auto":
            return self.decoders[0]
        if choice not in self.decoders:
            raise VqcodecError(
                f"model {self.name} has no decoder {choice!r}; it has {', '.join(self.decoders)}"
            )
        return choice

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

    def speaker(self, who: Speaker | Source, sample_rate: int | None = None) -> Speaker:
        """Find a voice by its name, or hear it in a reference recording.

        Args:
            who: a voice's name, a recording as in `encode`, or a `Speaker`.
            sample_rate: of an array or tensor, in Hz.

        Raises:
            SpeakerError: neither a known voice nor a recording, a silent one, another model's
                voice, or the model has only a table.
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
            clips: recordings as in `encode`.
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
        heard = enrolment.enrolled(
            self.engine,
            name,
            recordings,
            known=list(self.voices.values()),
            tune=self._tuned(on_progress) if tune else None,
        )
        self.voices[name] = self._speakers.own_voice(heard)
        return self.voices[name]

    def _tuned(
        self, on_progress: Progress | None
    ) -> Callable[[Sequence[Recording], np.ndarray], np.ndarray]:
        engine = self._torch  # says which extra is missing, if one is
        from vqcodec.inference import voice_tuning

        return lambda recordings, vector: (
            voice_tuning.tune(engine, recordings, vector, on_progress=on_progress).vector
        )

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
