"""Fixtures for tests of several commands."""

import pytest

from tests.cli.fakedaemon import fake_daemon


@pytest.fixture
def daemon():
    with fake_daemon() as running:
        yield running
