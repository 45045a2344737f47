"""Codes to sound: the half of a codec that decodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Unpack, overload

import numpy as np

from vqcodec.audio import open_writer
from vqcodec.audio.resampling import resample_blocks, resampled_length
from vqcodec.audio.soundfiles import checked_rate
from vqcodec.errors import CodesError, SpeakerError, VqcodecError
from vqcodec.format.codes import Codes
from vqcodec.format.streaming import Blocks, CodesStream, metadata_of
from vqcodec.inference import melody
from vqcodec.inference.decoding import speech_blocks
from vqcodec.inference.encoding import Progress
from vqcodec.inference.loaded_model import LoadedModel
from vqcodec.inference.sources import DecodeCall, Source
from vqcodec.models.interfaces import DecodeKeywords, DecodeOptions
from vqcodec.weights.voices import Speaker


class Synthesizer(LoadedModel):
    """A model that decodes."""

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
            CodesError: while iterating, a chunk is damaged, after the sound of all that came whole;
                and as `decode`.
        """
        faults: list[CodesError] = []
        n_codes = 0

        def whole(stream: CodesStream) -> Blocks:
            """What comes before a fault: it is heard to its end before that is raised."""
            nonlocal n_codes
            try:
                for block in stream.blocks():
                    n_codes += block.codes.shape[1]
                    yield block
            except CodesError as fault:
                faults.append(fault)
            return stream.n_samples or 0

        told: CodesStream | Codes = codes
        if isinstance(codes, CodesStream):
            told = CodesStream(codes.metadata, whole(codes))
        blocks, rate = self._decoded(told, speaker, DecodeOptions(**options), live=True)

        def n_samples() -> int | None:
            if faults:
                return resampled_length(n_codes * self.hop_length, self.sample_rate, rate)
            if codes.n_samples is None:
                return None
            own_rate = metadata_of(codes).original_sample_rate
            return resampled_length(codes.n_samples, own_rate, rate)

        def sound() -> Iterator[np.ndarray]:
            yield from resample_blocks(blocks, self.sample_rate, rate, n_samples)
            if faults:
                raise faults[0]

        return sound()

    def check_options(self, options: DecodeOptions, speaker: Speaker | None = None) -> None:
        """Refuse what this model can do with no codes, before any are made.

        Raises:
            VqcodecError: the model has no such decoder, or it knows nothing of the pitch that
                shall change.
            AudioError: the sample rate is impossible.
            SpeakerError: it is not known how high the other voice is, and the pitch shall change.
        """
        decoder = self.decoder(options.decoder)
        if options.sample_rate is not None:
            checked_rate("output", options.sample_rate)
        if not options.needs_pitch:
            return
        if self.config.pitch is None:
            raise VqcodecError(
                f"pitch and melody need a pitch stream, and {self.name} knows none: choose a model "
                "that has one, or leave them out"
            )
        if not self._file.is_told(decoder, melody.KIND):
            raise VqcodecError(
                f"pitch and melody are nothing to the {decoder} decoder of {self.name}, which has "
                "not learnt them: choose another decoder, or leave them out"
            )
        if speaker is not None and speaker.info.pitch_hz is None:
            raise SpeakerError(
                f"it is not known how high {speaker.name or 'that voice'} is, which pitch and "
                "melody need: enroll it anew, or leave them out"
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
        metadata = metadata_of(codes)
        self.check(metadata)
        voice = None if speaker is None else self.speaker(speaker)
        self.check_options(options, voice)
        blocks = speech_blocks(
            self.engine,
            melody.rows(codes, self.config),
            self._speakers.told(metadata, voice, options),
            replace(options, decoder=self.decoder(options.decoder)),
            own=self._speakers.own(metadata),
            gain=metadata.gain,
            live=live,
        )
        rate = options.sample_rate
        return blocks, metadata.original_sample_rate if rate is None else int(rate)
