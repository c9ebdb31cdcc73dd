"""The random choices of a test: when something is killed, and what is done next."""

import os
import random
from random import Random

import pytest


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Random:
    """Random choices that `TEST_SEED` repeats; pytest prints the seed of a test that fails.

    Choose before waiting for anything: then the same seed makes the same choices.
    """
    given = os.environ.get("TEST_SEED")
    seed = given or str(random.SystemRandom().randrange(1 << 32))
    print(f"repeat with: TEST_SEED={seed} pytest '{request.node.nodeid}'")
    return random.Random(seed)
