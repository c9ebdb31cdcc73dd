"""The operators of a process that wait, of which one waits at the doorbell for all."""

import os
import threading
from collections.abc import Iterator

import pytest

from dorad.node.runtime.scheduler import OperatorScheduler
from dorad.shm import doorbell
from dorad.shm.layout import BOX_ASLEEP
from tests.harness.waiting import wait_until


class Box:
    """A mailbox that no sender uses."""

    def __init__(self) -> None:
        self.words = [0] * (BOX_ASLEEP + 1)


class Connection:
    """A connection on which the daemon sends nothing."""

    def __init__(self) -> None:
        self.box = Box()
        self.bell = doorbell.create()
        self.descriptor, self.daemon = os.pipe()

    def has_mail(self) -> bool:
        return False

    def close(self) -> None:
        for descriptor in (self.bell, self.descriptor, self.daemon):
            os.close(descriptor)


class Operator:
    """An operator that waits once, and ends."""

    def __init__(self, scheduler: OperatorScheduler) -> None:
        self.gate = threading.Lock()
        self.gate.acquire()
        self.has_event = False
        self.looks = 0
        self._thread = threading.Thread(target=scheduler.wait, args=(self,), daemon=True)

    def may_have_event(self) -> bool:
        self.looks += 1
        return self.has_event

    def due_ns(self) -> None:
        return None

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()
        # It looks once it is known to wait, or to lead.
        wait_until(lambda: self.looks)

    def waits(self) -> bool:
        return self._thread.is_alive()


@pytest.fixture
def connection() -> Iterator[Connection]:
    connection = Connection()
    yield connection
    connection.close()


def test_an_operator_that_leads_after_another_waits_for_all(connection: Connection) -> None:
    """It is not merely woken: it could end before it waits again, and the others sleep for good."""
    scheduler = OperatorScheduler(connection)
    operators = [Operator(scheduler) for _ in range(4)]
    for operator in operators:
        operator.start()
    # Each of them leads once, but the last gets its event first.
    for operator in [operators[3], *operators[:3]]:
        assert all(each.waits() for each in operators if not each.has_event)
        wait_until(lambda: connection.box.words[BOX_ASLEEP])
        operator.has_event = True
        doorbell.ring(connection.bell)
        wait_until(lambda operator=operator: not operator.waits())
