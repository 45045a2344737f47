"""The errors and warnings that vqcodec raises on purpose: one line each, with what to do."""

from __future__ import annotations


class VqcodecError(Exception):
    """Base of every error that a user can cause and a user can mend."""


class AudioError(VqcodecError):
    """A recording cannot be read, is empty or holds impossible samples."""


class CodesError(VqcodecError):
    """A code file is damaged, too new, or belongs to another model."""


class CheckpointError(VqcodecError):
    """A model file is damaged, too new or not a vqcodec model."""


class SpeakerError(VqcodecError):
    """A voice is unknown or cannot be made from the given recordings."""


class DataError(VqcodecError):
    """A corpus or a prepared data folder is missing, incomplete or damaged."""


class ConfigError(VqcodecError):
    """A recipe has unknown keys or impossible values."""


class RecordingWarning(UserWarning):
    """A recording was used, though it is damaged, too short or unlike speech."""
