"""The policy: one layer of fixed random features, and one that is trained."""

from pathlib import Path

import numpy as np


class Policy:
    """Maps observations to actions."""

    def __init__(self, weights: np.ndarray, bias: np.ndarray, output: np.ndarray | None = None):
        self._weights = weights
        self._bias = bias
        self._output = output

    def _features(self, observations: np.ndarray) -> np.ndarray:
        hidden = np.tanh(observations @ self._weights + self._bias)
        return np.hstack([hidden, observations, np.ones((len(observations), 1))])

    def fit(self, observations: np.ndarray, actions: np.ndarray) -> None:
        """Train the last layer."""
        self._output, *_ = np.linalg.lstsq(self._features(observations), actions, rcond=1e-8)

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Return an action for each observation."""
        assert self._output is not None, "the policy is not trained"
        return self._features(observations) @ self._output

    def save(self, path: Path) -> None:
        """Write the parameters to a file."""
        np.savez(path, weights=self._weights, bias=self._bias, output=self._output)

    @classmethod
    def load(cls, path: Path) -> "Policy":
        """Read a policy from a file."""
        with np.load(path) as saved:
            return cls(saved["weights"], saved["bias"], saved["output"])
