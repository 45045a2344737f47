"""Sound files in and out: reading, resampling and levels. Imports no torch."""

from vqcodec.audio.recording import Recording, info, load, open_recording, open_writer
from vqcodec.audio.soundfiles import AudioInfo

__all__ = ["AudioInfo", "Recording", "info", "load", "open_recording", "open_writer"]
