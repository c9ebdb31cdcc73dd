"""What tests of several commands need."""

import pytest

from tests.cli.fakedaemon import fake_daemon


@pytest.fixture
def daemon():
    with fake_daemon() as running:
        yield running
