"""The bounded queue in front of an exporter."""

import logging
import threading

import pytest

from dorad.telemetry.sender import MAX_REQUEST, MAX_WAITING, Sender
from dorad.telemetry.settings import Endpoint
from tests.harness.waiting import wait_until

ENDPOINT = Endpoint("http://user:secret@c:4318/v1/logs", "http/protobuf")


class Exporter:
    """An exporter that can be held, and fails on demand."""

    def __init__(self):
        self.free = threading.Event()
        self.free.set()
        self.busy = threading.Event()
        self.batches = []
        self.outcome = True

    def __call__(self, batch):
        self.busy.set()
        assert self.free.wait(60)
        self.batches.append(list(batch))
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if not self.outcome:
            logging.getLogger("opentelemetry.exporter").error("code: %d", 401)
        return self.outcome


@pytest.fixture
def exporter():
    exporter = Exporter()
    yield exporter
    exporter.free.set()


def sender(exporter, changes=None, **limits):
    changed = (lambda *change: None) if changes is None else lambda *change: changes.append(change)
    return Sender("logs", ENDPOINT, exporter, changed, **({"limit": 4, "batch": 3} | limits))


def test_items_are_sent_in_order_and_counted(exporter):
    queue = sender(exporter, limit=1000)
    for number in range(100):
        queue.put(number)
    queue.close()
    queue.join(60)
    assert [each for batch in exporter.batches for each in batch] == list(range(100))
    assert max(map(len, exporter.batches)) <= 3
    assert queue.delivery == ("http://c:4318/v1/logs", 100, 0, "")


def test_a_full_queue_drops_new_items_and_counts_them(exporter):
    exporter.free.clear()
    queue = sender(exporter)
    queue.put(0)
    assert exporter.busy.wait(60)
    for number in range(1, 10):
        queue.put(number)
    assert queue.delivery.dropped == 6
    exporter.free.set()
    queue.close()
    queue.join(60)
    assert exporter.batches == [[0], [1, 2, 3]]
    assert queue.delivery[1:3] == (4, 6)


def test_bytes_are_bounded_too(exporter):
    exporter.free.clear()
    queue = sender(exporter, limit=100)
    queue.put("a", size=MAX_WAITING - 1)
    assert exporter.busy.wait(60)
    queue.put("b", size=2)
    queue.put("c", size=1)
    assert queue.delivery.dropped == 1
    exporter.free.set()
    queue.close()
    queue.join(60)
    assert exporter.batches == [["a"], ["c"]]


def test_a_request_stays_below_what_collectors_take(exporter):
    exporter.free.clear()
    queue = sender(exporter, limit=100, batch=100)
    queue.put(0)
    assert exporter.busy.wait(60)
    for number in range(1, 5):
        queue.put(number, size=MAX_REQUEST // 2)
    exporter.free.set()
    queue.close()
    queue.join(60)
    assert exporter.batches == [[0], [1, 2, 3], [4]]


def test_a_refusal_is_counted_and_told_once_with_its_reason(exporter):
    changes = []
    exporter.outcome = False
    queue = sender(exporter, changes, batch=1, limit=100)
    for number in range(3):
        queue.put(number)
    queue.close()
    queue.join(60)
    assert [(name, each.error) for name, each in changes] == [("logs", "code: 401")]
    assert queue.delivery == ("http://c:4318/v1/logs", 0, 3, "code: 401")


def test_an_exporter_that_raises_does_not_end_the_sending(exporter):
    changes = []
    exporter.outcome = ValueError("bad \x1b[2J value")
    queue = sender(exporter, changes, batch=1, limit=100)
    queue.put(0)
    wait_until(lambda: changes)
    exporter.outcome = True
    queue.put(1)
    queue.close()
    queue.join(60)
    assert [bool(each.error) for _, each in changes] == [True, False]
    assert changes[0][1].error.isprintable()
    assert queue.delivery[1:] == (1, 1, "")


def test_what_is_left_at_the_end_is_counted_as_dropped_once(exporter):
    exporter.free.clear()
    queue = sender(exporter)
    for number in range(3):
        queue.put(number)
    assert exporter.busy.wait(60)
    queue.close()
    queue.join(0.01)
    assert queue.delivery[1:] == (0, 3, "not sent in time at the end")
    exporter.free.set()


def test_the_reason_of_a_failure_is_that_of_the_last_attempt(exporter):
    def export(batch):
        log = logging.getLogger("opentelemetry.exporter")
        log.warning("connection refused, retrying in 1 s")
        log.error("failed due to timeout")
        return False

    queue = sender(export)
    queue.put(0)
    queue.close()
    queue.join(60)
    assert queue.delivery.error == "connection refused, retrying in 1 s"
