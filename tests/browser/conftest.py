"""One browser for all tests of a worker: to start one takes seconds."""

from collections.abc import Iterator

import pytest

from tests.harness.browser import Browser, Page, browser, program


@pytest.fixture(scope="session")
def started() -> Iterator[Browser]:
    """A running Chromium."""
    if program() is None:
        pytest.skip("there is no `chromium` here; `make browser` installs none")
    with browser() as each:
        yield each


@pytest.fixture
def page(started: Browser) -> Iterator[Page]:
    """A new tab, in which nothing goes wrong but that its server may end."""
    tab = started.page()
    tab.size(1280, 800)
    yield tab
    tab.run("1")  # takes the events that have come
    tab.close()
    assert [each for each in tab.errors if "WebSocket connection to" not in each] == []
