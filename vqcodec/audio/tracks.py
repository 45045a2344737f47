"""What is heard in a recording for the streams of vqcodec/models/streams.py, by their names."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from vqcodec.audio import pitch_tracker

# Waveform (T,) float32 at the model's rate and normalised level, and samples per value -> float32
# (ceil(T / hop_length),), a value for each code; 0 is nothing.
TRACKERS: dict[str, Callable[[np.ndarray, int], npt.NDArray[np.float32]]] = {
    "pitch": pitch_tracker.contour,
}
