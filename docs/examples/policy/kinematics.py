"""An arm of two links in a plane."""

import numpy as np

LINKS_M = 0.5, 0.4


def hand(angles: np.ndarray) -> np.ndarray:
    """Return where the hand is, for angles of shape (..., 2) in radians."""
    shoulder, elbow = angles[..., 0], angles[..., 0] + angles[..., 1]
    x = LINKS_M[0] * np.cos(shoulder) + LINKS_M[1] * np.cos(elbow)
    y = LINKS_M[0] * np.sin(shoulder) + LINKS_M[1] * np.sin(elbow)
    return np.stack([x, y], axis=-1)
