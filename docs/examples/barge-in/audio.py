"""Synthetic sound, in frames of 10 ms."""

import numpy as np

RATE = 16_000
FRAME = RATE // 100


def tone(hertz: float, number: int) -> np.ndarray:
    """Return frame `number` of a tone."""
    time = (np.arange(FRAME) + number * FRAME) / RATE
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def loudness(frame: np.ndarray) -> float:
    """Return the effective value of a frame."""
    return float(np.sqrt(np.mean(frame**2)))
