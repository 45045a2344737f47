"""Sound files in and out: reading, resampling and levels. Imports no torch."""

from vqcodec.audio.recording import Recording, info, load, open_recording
from vqcodec.audio.soundfiles import AudioInfo
from vqcodec.audio.writing import open_writer

__all__ = ["AudioInfo", "Recording", "info", "load", "open_recording", "open_writer"]
