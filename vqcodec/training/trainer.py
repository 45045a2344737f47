"""A stage of a codec's training: the same for every stage, device and number of processes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from vqcodec.codec import load as load_codec
from vqcodec.data.batches import Batch
from vqcodec.data.clips import AudioClips, Clip, duration
from vqcodec.data.data_config import PerturbationConfig
from vqcodec.data.dataset import SegmentSampler, load_resident_audio, speaker_names
from vqcodec.data.encoded import EncodedClips, read_encoded
from vqcodec.data.phones import read_phones
from vqcodec.data.prepared import PreparedData
from vqcodec.data.stream_tracks import StreamTracks, load_tracks
from vqcodec.errors import ConfigError
from vqcodec.models.codebook_usage import CodebookUsage, CollapseMonitor
from vqcodec.models.quantizer import VectorQuantizer
from vqcodec.models.streams import build_streams
from vqcodec.training.adversary import AdversarialLosses, Adversary
from vqcodec.training.encoder_objective import EncoderObjective
from vqcodec.training.entropy_coder import fit_entropy_coder
from vqcodec.training.loop import Report, Training, average_losses
from vqcodec.training.model_files import (
    build_model,
    complete_recipe,
    log_tables,
    log_voices,
    mean_pitches,
    write_model,
)
from vqcodec.training.objective import Losses, Objective
from vqcodec.training.recipe import CODEC_FILE, Recipe
from vqcodec.training.session import Processes
from vqcodec.training.streamed import (
    StreamedSampler,
    StreamedSource,
    audio_pool,
    streamed_source,
)
from vqcodec.weights import checkpoint, model_file
from vqcodec.weights.checkpoint import Checkpoint
from vqcodec.weights.model_file import CODES_OF
from vqcodec.weights.voices import PITCHES

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)

KMEANS_VECTORS_PER_CODE = 25
SETTLING_STEPS = 200  # after its start, before the codebook is judged
VALIDATION_BATCHES = 16
EXAMPLE_N_FFT = 1024


class Trainer(Training[Batch]):
    """State and steps of one training."""

    MODEL_FILE = CODEC_FILE
    recipe: Recipe

    def __init__(
        self, recipe: Recipe, place: Processes, on_report: Callable[[Report], None]
    ) -> None:
        start = None if recipe.initial_model is None else checkpoint.load(recipe.initial_model)
        recipe = complete_recipe(recipe, start)
        # Codes that keep their meaning keep entropy coder and voices, and their files readable.
        kept = start if recipe.freezes_codebook else None
        is_read_alike = kept and (recipe.stage == "encoder" or CODES_OF in kept.provenance)
        self.codes_of = kept.fingerprint if kept and is_read_alike else None
        self.tables = kept.tables if kept else None
        self.voices = kept.voices if kept else {}
        super().__init__(recipe, recipe.data.batch_size, place, on_report)
        source = self.source = streamed_source(recipe.data.root)
        data = self.data = self._opened()
        data.check_rate(recipe.model.sample_rate, "the recipe")
        self.data_digest, self.is_followed = data.digest, recipe.fits_entropy_coder
        teaches_phones = recipe.loss.phones > 0 and not recipe.freezes_codes
        self.phones = read_phones(data) if teaches_phones else None
        self.resident = self._resident(data)
        self.encoded = self._encoded(start)
        self.tracks = self._tracks(data)
        own = kept.provenance.get(PITCHES, {}) if kept else {}
        self.pitches = {**mean_pitches(data, self.tracks), **own}
        clips = data.split("train")
        self.speakers = speaker_names(clips)
        if start is not None and place.rank == 0:
            log_voices(recipe, start, self.speakers)
            log_tables(recipe, start)
        self.sampler: SegmentSampler | StreamedSampler[Batch] = (
            self._sampler(data, clips, recipe.perturbation, recipe.seed, tracks=self.tracks)
            if source is None
            else self._streamed(source)
        )
        valid = data.split("valid")
        if recipe.model.speaker.kind == "table":  # which has no row for an unseen speaker
            valid = [clip for clip in valid if clip.speaker in set(self.speakers)]
        self.is_validated = bool(valid)
        unperturbed = PerturbationConfig(probability=0.0, stream_dropout=0.0)
        self.validation = self._sampler(
            data, valid or clips, unperturbed, seed=1, tracks=self.tracks
        )
        torch.manual_seed(recipe.seed)
        self.objective = self._objective(start).to(place.device)
        if recipe.compile:
            self.objective.compile_parts()
        self.adversary, discriminators = None, []
        if recipe.adversarial.weight > 0:
            self.adversary = Adversary(recipe.adversarial).to(place.device)
            rate = recipe.adversarial.learning_rate
            discriminators = [{"params": list(self.adversary.parameters()), "lr": rate}]
        self._start(self.objective, discriminators)
        learned_codebook = recipe.model.quantizer.codebook_update == "loss"
        self.forward: Callable[[Batch], Losses] = self._distribute(
            self.objective, find_unused=learned_codebook
        )
        self.play: Callable[..., AdversarialLosses] | None = (
            self._distribute(self.adversary) if self.adversary else None
        )
        self.monitor = CollapseMonitor(
            recipe.model.quantizer.codebook_size, recipe.model.quantizer.n_codebooks
        )

    def _objective(self, start: Checkpoint | None) -> Objective | EncoderObjective:
        model = build_model(self.recipe, start, self.speakers)
        if self.recipe.stage == "encoder":
            return EncoderObjective(model, self.recipe, self.tables)
        return Objective(model, self.recipe, len(self.phones.classes) if self.phones else 0)

    def _summary(self) -> str:
        clips, config = self.data.split("train"), self.recipe.data
        length = duration(sum(clip.n_samples for clip in clips) / self.data.sample_rate)
        seconds = config.segment_length * self.recipe.model.hop_length / self.data.sample_rate
        pools = f", now and then others of {self.source.n_drawn} parts" if self.source else ""
        speakers = f"{len(self.speakers)} speaker{'' if len(self.speakers) == 1 else 's'}"
        return (
            f"{length} of {speakers}, batches of {config.batch_size} "
            f"segments of {seconds:.2f} s{pools}"
        )

    def _sampler(
        self,
        data: AudioClips,
        clips: list[Clip],
        perturbation: PerturbationConfig,
        seed: int,
        *,
        tracks: StreamTracks | None,
    ) -> SegmentSampler:
        return SegmentSampler(
            data,
            clips,
            self.recipe.data,
            speakers=self.speakers,
            hop_length=self.recipe.model.hop_length,
            perturbation=perturbation,
            augmentation=self.recipe.augmentation,
            seed=seed,
            resident=self.resident if data is self.data else self._resident(data),
            phones=self.phones,
            encoded=self.encoded,
            tracks=tracks,
        )

    def _resident(self, data: AudioClips) -> torch.Tensor | None:
        return load_resident_audio(data, self.place.device, self.recipe.data.resident)

    def _opened(self) -> AudioClips:
        """What is prepared; of a source that is not, what the first steps are drawn from."""
        recipe = self.recipe
        if self.source is None:
            return PreparedData(recipe.data.root)
        return self._pool(self.source, self.source.first_parts(recipe.data, recipe.seed))

    def _pool(self, source: StreamedSource, parts: Sequence[int]) -> AudioClips:
        """What some parts of a source hold that was not prepared."""
        recipe = self.recipe
        asked = {
            "loss.phones": recipe.loss.phones,
            "data.codes": recipe.data.codes,
            "model.speaker.kind table": recipe.model.speaker.kind == "table",
        }
        if named := [name for name, is_asked in asked.items() if is_asked]:
            raise ConfigError(
                f"{recipe.data.root}: {named[0]} needs to know all recordings: prepare them first"
            )
        return audio_pool(
            source,
            parts,
            root=recipe.data.root,
            sample_rate=recipe.model.sample_rate,
            n_threads=max(1, recipe.data.workers),
        )

    def _streamed(self, source: StreamedSource) -> StreamedSampler[Batch]:
        recipe = self.recipe

        def build(parts: Sequence[int]) -> SegmentSampler:
            data = self._pool(source, parts)
            tracks, clips = self._tracks(data), data.split("train")
            return self._sampler(data, clips, recipe.perturbation, recipe.seed, tracks=tracks)

        return StreamedSampler(source.n_drawn, recipe.data, recipe.seed, build)

    def _tracks(self, data: AudioClips) -> StreamTracks | None:
        streams = build_streams(self.recipe.model)
        if not streams:
            return None
        hop_length, is_first = self.recipe.model.hop_length, self.place.rank == 0
        if not isinstance(data, PreparedData):
            return load_tracks(data, streams, hop_length)
        tracks = load_tracks(data, streams, hop_length) if is_first else None
        self._sum(torch.zeros(1, device=self.place.device))  # the others wait for what it makes
        return tracks or load_tracks(data, streams, hop_length, makes=False)

    def _encoded(self, start: Checkpoint | None) -> EncodedClips | None:
        folder = self.recipe.data.codes
        if start is None or folder is None:
            return None
        return read_encoded(
            Path(folder), self.data, fingerprint=start.fingerprint, tables=start.tables
        )

    def _batches(self) -> Iterable[Batch]:
        steps = range(self.step, self.recipe.steps)
        return self.sampler.batches(steps, self.place.rank, self.place.world_size)

    def _train_step(self, batch: Batch) -> dict[str, float]:
        self._start_codebook_when_due()
        batch = batch.to(self.place.device)
        with self._autocast():
            losses = self.forward(batch)
            total, scalars = losses.total, losses.scalars()
            if self.play is not None and self._is_adversarial():
                assert losses.decoded is not None
                game = self.play(losses.decoded, batch.waveform)
                total = total + game.total
                scalars |= game.scalars()
        self._optimizer_step(total)
        self.monitor.update(losses.indices)
        return self._values(scalars)

    def _is_adversarial(self) -> bool:
        adversarial = self.recipe.adversarial
        return adversarial.weight > 0 and self.step >= adversarial.start_step

    def _values(self, scalars: dict[str, torch.Tensor]) -> dict[str, float]:
        """Each loss, as the mean over processes."""
        values = self._sum(torch.stack(list(scalars.values()))) / self.place.world_size
        return dict(zip(scalars, values.tolist(), strict=True))

    @torch.no_grad()
    def _start_codebook_when_due(self) -> None:
        model, place = self.objective.model, self.place
        quantizer = model.quantizer
        if not isinstance(quantizer, VectorQuantizer) or bool(quantizer.initialized):
            return
        if self.step < self.recipe.unquantized_steps:
            return
        wanted = KMEANS_VECTORS_PER_CODE * self.recipe.model.quantizer.codebook_size
        vectors: list[torch.Tensor] = []
        step = self.step
        model.eval()
        while sum(map(len, vectors)) < wanted:
            # Whole batches, of which every process gives a part: in the order of one process.
            batch = self.sampler.batch(step)
            latents = model.norm(model.encoder(batch.waveform.to(place.device)))
            vectors.append(quantizer.project(latents).flatten(0, 1))
            step += 1
        quantizer.initialize(torch.cat(vectors).chunk(place.world_size)[place.rank])
        self.objective.train()
        self.average.n_averaged.zero_()  # begins anew: what came before knew no codebook

    def run(self, resume: bool) -> Path:
        """Train as every training does; where the last step is done, fit the entropy coder."""
        path, config = super().run(resume), self.recipe.entropy_coder
        if self.place.rank == 0 and self._lacks_tables() and super()._is_done():
            hours = duration(config.hours * 3600)
            logger.info("fitting the entropy coder to codes of %s at most", hours)
            codec = load_codec(path, device=self.place.device.type, voices=False)
            tables = fit_entropy_coder(codec, self.data, hours=config.hours, steps=config.steps)
            model_file.add_tables(path, tables)
        return path

    def _is_done(self) -> bool:
        return super()._is_done() and not self._lacks_tables()

    def _lacks_tables(self) -> bool:
        """Whether there is a model whose entropy coder is yet to be fitted."""
        path = self.output / self.MODEL_FILE
        is_there = self.recipe.fits_entropy_coder and path.exists()
        return is_there and model_file.read(path).tables is None

    @torch.no_grad()
    def _validate(self, writer: SummaryWriter | None, ends: Callable[[], bool]) -> float | None:
        average = cast(Objective | EncoderObjective, self.average.module)
        objective, place = average.eval(), self.place
        if self.recipe.freezes_codebook:
            # Averaging makes 0.0 of -0.0: another fingerprint.
            newest = self.objective.model
            trained = {name for name, each in newest.named_parameters() if each.requires_grad}
            state = newest.state_dict()
            frozen = {name: state[name] for name in state.keys() - trained}
            objective.model.load_state_dict(frozen, strict=False)
        indices = range(VALIDATION_BATCHES)
        values = []
        for batch in self.validation.batches(indices, place.rank, place.world_size):
            if ends():
                return None
            with self._autocast():
                values.append(self._values(objective(batch.to(place.device)).scalars()))
        losses = average_losses(values)
        loss = losses["total"]
        quantizer = objective.model.quantizer
        started = not isinstance(quantizer, VectorQuantizer) or bool(quantizer.initialized)
        if writer:
            for name, value in losses.items():
                writer.add_scalar(f"validation/{name}", value, self.step)
            if self.recipe.trains_waveforms:
                self._add_example(writer, objective)
        # Distances to the recordings do not see what discriminators improve, or what becomes of
        # other voices: the newest model is kept.
        draws_codes = self.recipe.loss.consistency > 0 and not self.recipe.freezes_codebook
        converts = self.recipe.perturbation.conversion > 0 or self.recipe.loss.hears_conversions
        is_blind = self._is_adversarial() or converts or draws_codes
        if started and (loss < self.best or (is_blind and math.isfinite(loss))):
            self.best = loss
            if place.rank == 0:
                write_model(
                    self.output / self.MODEL_FILE,
                    objective.model,
                    self.recipe,
                    self.data,
                    place.device,
                    steps=self.step,
                    validation_loss=loss,
                    tables=self.tables,
                    voices=self.voices,
                    pitches=self.pitches,
                    codes_of=self.codes_of,
                )
        return loss

    def _add_example(self, writer: SummaryWriter, objective: Objective | EncoderObjective) -> None:
        """Show TensorBoard the first segment of validation, and what is made of it."""
        batch = self.validation.batch(0).to(self.place.device)
        decoded = objective(batch).decoded
        assert decoded is not None
        for name, waveform in (("true", batch.waveform[:1]), ("decoded", decoded[:1])):
            writer.add_audio(name, waveform.clamp(-1, 1), self.step, self.data.sample_rate)
            log_mel = objective.waveform_loss.spectral.log_mel(waveform, EXAMPLE_N_FFT)[0].T
            image = (log_mel - log_mel.min()) / (log_mel.max() - log_mel.min() + 1e-6)
            writer.add_image(f"log_mel/{name}", image.flip(0)[None], self.step)

    def _usage_and_warning(self) -> tuple[CodebookUsage, str | None]:
        counts = self._sum(self.monitor.counts.to(self.place.device))
        usage = self.monitor.usage(counts.cpu())
        settled = self.step >= self.recipe.unquantized_steps + SETTLING_STEPS
        # Of codes that are frozen, nothing here could be mended.
        is_judged = settled and not self.recipe.freezes_codebook
        return usage, self.monitor.warning(usage) if is_judged else None

    def _modules(self) -> dict[str, nn.Module]:
        modules: dict[str, nn.Module] = {"objective": self.objective, "average": self.average}
        return modules | ({"adversary": self.adversary} if self.adversary else {})
