"""The voices that a codec knows, and what its decoders are told of them."""

from __future__ import annotations

import math
import os
from dataclasses import replace

import numpy as np

from vqcodec.audio import Recording
from vqcodec.errors import CodesError, SpeakerError
from vqcodec.format.header import StreamMetadata
from vqcodec.format.stream_records import StreamRecord
from vqcodec.inference import enrolment
from vqcodec.inference.encoding import speaker_vectors
from vqcodec.inference.engines import Engine
from vqcodec.inference.melody import Pitch, Voice, record_of
from vqcodec.inference.sources import Source, open_reference
from vqcodec.models.interfaces import DecodeOptions
from vqcodec.models.speaker_vector import from_int8, guided, mean_vector
from vqcodec.weights.model_file import ModelFile
from vqcodec.weights.voices import (
    Speaker,
    VoiceInfo,
    VoicesFile,
    models_with,
    unknown_voice,
    voice_info,
)


class Speakers:
    """Voices by name, enrolled ones included, and those that recordings and codes bring."""

    def __init__(self, file: ModelFile, engine: Engine, enrolled: VoicesFile | None) -> None:
        self.engine, self.model_name, self.fingerprint = engine, file.name, file.fingerprint
        known = voice_info(file.provenance, file.fingerprint)
        self.voices = {
            name: Speaker(vector, name, known.get(name, VoiceInfo()), file.fingerprint)
            for name, vector in file.voices.items()
        }
        self._of_model, self.enrolled = dict(self.voices), enrolled
        if enrolled is not None:
            kept = enrolled.voices(self.fingerprint)
            self.voices |= {name: self.own_voice(voice) for name, voice in kept.items()}

    def find(self, who: Speaker | Source, sample_rate: int | None = None) -> Speaker:
        """See `Codec.speaker`."""
        if isinstance(who, Speaker):
            if who.fingerprint not in (None, self.fingerprint):
                raise SpeakerError(
                    f"{who.name or 'a recording'}: its voice is as another model heard it, and "
                    f"{self.model_name} hears otherwise: have this one hear it (speaker, enroll)"
                )
            return who
        if isinstance(who, str) and who in self.voices:
            return self.voices[who]
        if isinstance(who, str | os.PathLike) and not os.path.exists(who):
            raise self.unknown(str(who))
        return self.own_voice(enrolment.heard(self.engine, open_reference(who, sample_rate)))

    def own_voice(self, voice: Speaker) -> Speaker:
        """A voice that this model heard, so that no other takes it for one of its own."""
        return replace(voice, fingerprint=self.fingerprint)

    def unknown(self, name: str) -> SpeakerError:
        """The error for a voice that is not known here: what is known instead."""
        if now := self._renamed(name):
            return SpeakerError(f"{name}: is a voice that is called {now} now; give that name")
        if models := models_with(name, self.enrolled):
            return SpeakerError(
                f"{name}: is a voice of {', '.join(models)}, not of {self.model_name}: use such a "
                f"model (--model), or enroll {name} for {self.model_name}, too"
            )
        return unknown_voice(name, self.voices)

    def mark(self, who: str | Speaker) -> str | np.ndarray:
        """What codes say of a voice: its name, if that can mean no other, or its vector."""
        voice = self.find(who)
        if voice.name is None or voice is not self.voices.get(voice.name):
            return voice.vector
        namesake = self._of_model.get(voice.name, voice)
        return voice.name if np.array_equal(namesake.vector, voice.vector) else voice.vector

    def heard_in(self, recording: Recording, gain: float) -> np.ndarray:
        """The stored vector, (64,) int8, of who speaks in a recording of some level."""
        return mean_vector(speaker_vectors(self.engine, recording, gain=gain))

    def of(self, codes: StreamMetadata) -> Speaker | None:
        """The voice that codes carry or name; such a name is never taken for a path."""
        if isinstance(codes.speaker, np.ndarray):
            return Speaker(codes.speaker)
        return self.voices.get(codes.speaker)

    def own(self, codes: StreamMetadata) -> Voice | None:
        """The voice that spoke codes, as it spoke them; None if it is not known."""
        speaker, record = self.of(codes), self._record(codes)
        if speaker is None:
            return None
        mean = None if record is None else math.log(record.reference)
        return Voice(from_int8(speaker.vector), None if mean is None else Pitch(mean, mean))

    def told(self, codes: StreamMetadata, speaker: Speaker | None, options: DecodeOptions) -> Voice:
        """The voice that decoders are told: another `speaker`, or else the codes' own.

        Raises:
            SpeakerError: the voice is not known.
            CodesError: the options ask for a pitch that the codes do not tell.
        """
        record = self._record(codes)
        if options.needs_pitch and record is None:
            raise CodesError(
                "pitch and melody need a pitch stream, and these codes tell none: encode the "
                "recording with a model that has one, or leave them out"
            )
        own = self.of(codes)
        if speaker is not None:
            vector = from_int8(speaker.vector)
            if own is not None:
                vector = guided(vector, from_int8(own.vector))
            return Voice(vector, _pitch(record, speaker.info.pitch_hz, options))
        if own is not None:
            hertz = None if record is None else record.reference
            return Voice(from_int8(own.vector), _pitch(record, hertz, options))
        if now := self._renamed(str(codes.speaker)):
            raise SpeakerError(
                f"these codes name the voice {codes.speaker}, which is called {now} now: give it "
                f"as --speaker {now}"
            )
        raise SpeakerError(
            f"these codes name the voice {codes.speaker}, which model {self.model_name} does not "
            "know: load the voices file it is in (--voices), or give another --speaker"
        )

    def _record(self, codes: StreamMetadata) -> StreamRecord | None:
        """Of the pitch that codes tell, if decoders know what to make of it."""
        return record_of(codes) if self.engine.config.pitch else None

    def _renamed(self, name: str) -> str | None:
        return self.enrolled.renamed(self.fingerprint, name) if self.enrolled else None


def _pitch(
    record: StreamRecord | None, hertz: float | None, options: DecodeOptions
) -> Pitch | None:
    """How high a voice of some mean pitch shall be; None where that or the codes' is not known."""
    if record is None or hertz is None:
        return None
    told = math.log(hertz) + options.pitch * math.log(2) / 12
    return Pitch(math.log(record.reference), told, options.stretch)
