"""A detector of calls that block an event loop."""

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, BlockingError

__all__ = ["nothing_blocks"]


@pytest.fixture
def nothing_blocks(caplog: pytest.LogCaptureFixture) -> Iterator[BlockBuster]:
    """Raise BlockingError where code of ours blocks the event loop that it runs in.

    Where the error was caught and logged, as that of a handler is, the test fails in the end.
    """
    detector = BlockBuster("dorad")
    detector.activate()
    try:
        yield detector
    finally:
        detector.deactivate()
    for record in [*caplog.get_records("setup"), *caplog.get_records("call")]:
        if record.exc_info and isinstance(record.exc_info[1], BlockingError):
            pytest.fail(f"the event loop was blocked: {record.exc_info[1]}")
        if BlockingError.__name__ in record.getMessage():
            pytest.fail(f"the event loop was blocked: {record.getMessage()}")
