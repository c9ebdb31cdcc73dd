"""Trains the policy: least squares on random features, from examples of an expert.

The expert knows the angles at which the hand is at the target, and goes a fifth of the way.
"""

from pathlib import Path

import numpy as np
from kinematics import hand
from model import Policy

EXAMPLES, TESTS, FEATURES, STEP = 4000, 1000, 300, 0.2


def examples(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return observations (two angles, the target) and the expert's actions."""
    angles = rng.uniform((0.0, 0.5), (1.5, 2.0), (count, 2))
    wanted = rng.uniform((0.0, 0.5), (1.5, 2.0), (count, 2))
    return np.hstack([angles, hand(wanted)]), STEP * (wanted - angles)


def main() -> None:
    """Train, measure on examples that were not seen, and save."""
    rng = np.random.default_rng(7)
    observations, actions = examples(EXAMPLES, rng)
    policy = Policy(rng.normal(0, 1.5, (4, FEATURES)), rng.uniform(-3, 3, FEATURES))
    policy.fit(observations, actions)
    observations, actions = examples(TESTS, rng)
    error = np.abs(policy(observations) - actions).mean()
    Path("out").mkdir(exist_ok=True)
    policy.save(Path("out/policy.npz"))
    print(f"trained on {EXAMPLES} examples, mean error {error:.4f} rad")


if __name__ == "__main__":
    main()
