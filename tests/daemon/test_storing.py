"""When the state of a dataflow is stored, and what waits for that."""

import asyncio

from dorad.daemon.storing import StoreThrottle
from tests.harness.waiting import until


async def test_what_waits_for_a_change_is_called_after_the_change_is_stored() -> None:
    found: list[str] = []
    throttle = StoreThrottle(lambda: found.append("stored"))
    throttle.when_stored(lambda: found.append("nothing to store"))
    throttle.changed()
    throttle.when_stored(lambda: found.append("first"))
    throttle.when_stored(lambda: found.append("second"))
    assert found == ["nothing to store"]
    await until(lambda: len(found) == 4)
    assert found[1:] == ["stored", "first", "second"]


async def test_the_end_calls_what_still_waits() -> None:
    found: list[str] = []
    throttle = StoreThrottle(lambda: found.append("stored"))
    throttle.changed()
    throttle.when_stored(lambda: found.append("called"))
    throttle.close()
    throttle.changed()
    throttle.when_stored(lambda: found.append("at once"))
    await asyncio.sleep(0)
    assert found == ["stored", "called", "at once"]
