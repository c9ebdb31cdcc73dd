"""Records that a bad disk, another version or a person has damaged: which of them stop a start."""

import asyncio
import base64
import logging
from pathlib import Path

import pytest

from dorafleet.coordinator.control import FleetControl
from dorafleet.coordinator.grants import Grants
from dorafleet.coordinator.keptincidents import IncidentSettings, KeptIncidents
from dorafleet.coordinator.members import IMPORTED, Members
from dorafleet.coordinator.storerecords import is_needed
from dorafleet.coordinator.writer import Writer
from dorafleet.store.errors import Code, StoreError
from dorafleet.store.etcd import EtcdStore
from dorafleet.store.gateway import Gateway
from dorafleet.store.model import Store, Term, Transaction
from tests.fleet.store.etcdserver import Cluster

DAMAGED = (b"", b"{", b"\xff\xfe\x00", b"[" * 10_000, b'{"generation": %d}' % 10**400, b"null")
"""Nothing, half of a record, bytes that are no text, nesting, a number that is none, and nothing
of a record."""

STOPS = (
    *("deployment/pick", "desired/arm1/pick", "labels/arm1", "restored", "release/aa"),
    "machine/arm1",
    *("rollout/00000001", "rollout-failed/pick/arm1"),
    *("access/robot/arm1", "access/token/ci", "access/of-a-newer-version/x"),
)
REPORTED_AGAIN = (
    *("alerts/arm1", "past-alerts", "last-seen", "last-states/arm1", "robot-states"),
    *("notify/told/arm1", "notify/waiting/77", "notify/receivers"),
)


async def load(store: Store) -> None:
    """Read what a coordinator reads before it serves anybody."""
    writer = Writer(store, Term(1, 1, asyncio.Event()))
    members = Members(store, writer)
    if not (await store.get(IMPORTED)).entries:
        await store.commit(Transaction(puts={IMPORTED: b'{"at": 1}'}))
    await members.load([])
    await Grants(store, writer).load()
    incidents = KeptIncidents(Path("/nonexistent"), IncidentSettings())
    await FleetControl(store, writer, members, None, lambda: None, incidents=incidents).load()


async def test_a_damaged_record_that_was_decided_stops_the_start_with_its_key(store: Store) -> None:
    await load(store)
    for key in STOPS:
        assert is_needed(key)
        for value in DAMAGED:
            await store.commit(Transaction(puts={key: value}))
            with pytest.raises(StoreError) as caught:
                await load(store)
            assert caught.value.code == Code.DAMAGED
            assert caught.value.message.startswith(f"`{key}` in {store.name} is damaged: ")
            assert "dorafleet restore" in str(caught.value.hint)
            assert "\n" not in str(caught.value)
        await store.commit(Transaction(deletes=(key,)))
    await load(store)


async def test_without_a_damaged_record_that_robots_report_again_the_coordinator_goes_on(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for key in REPORTED_AGAIN:
        assert not is_needed(key)
        for value in DAMAGED:
            await store.commit(Transaction(puts={key: value}))
            caplog.clear()
            with caplog.at_level(logging.WARNING):
                await load(store)
            [line] = caplog.messages
            assert f"`{key}` in {store.name} is damaged: " in line
        await store.commit(Transaction(deletes=(key,)))


RECORD = b"""{"uuid": "u", "name": "place", "path": "/p", "original": {}, "descriptor": {},
"options": {}, "placement": {}, "ports": {}, "generation": 1, "started_at": 1, "hold": 1}"""
ROLLOUT = b"""{"number": %d, "dataflow": "pick", "release": "", "name": "", "size": 0, "by": "",
"created": 1, "strategy": {"max_parallel": "%b"}}"""


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (
            "deployment/pick",
            b'{"name": "pick", "source": "inline", "run": %s}' % RECORD,
            "it describes `place`",
        ),
        (
            "machine/arm1",
            b'{"place": 1, "machine": {"id": "arm2", "host": "h"}}',
            "it describes `arm2`",
        ),
        (
            "machine/arm1",
            b'{"place": 1, "machine": {"id": "arm1", "host": "a b"}}',
            "machine `arm1`: ",
        ),
        ("rollout/00000007", ROLLOUT % (8, b"1"), "it describes rollout 8"),
        ("rollout/00000007", ROLLOUT % (7, b"many"), "max_parallel: `many` is neither"),
    ],
)
async def test_a_record_that_cannot_be_meant_stops_the_start(
    store: Store, key: str, value: bytes, why: str
) -> None:
    await store.commit(Transaction(puts={key: value}))
    with pytest.raises(StoreError) as caught:
        await load(store)
    assert f"`{key}` in {store.name} is damaged: {why}" in str(caught.value)


async def test_facts_about_an_etcd_that_are_damaged_refuse_it_and_keys_that_are_no_text_do_not(
    etcd: Cluster,
) -> None:
    namespace = "/damaged/"
    stray = base64.b64encode(f"{namespace}data/alerts/".encode() + b"\xff").decode()
    meta = base64.b64encode(f"{namespace}meta".encode()).decode()
    gateway = Gateway(etcd.urls)
    store = await EtcdStore.open(etcd.urls, namespace=namespace)
    try:
        await gateway.call("/v3/kv/put", {"key": stray, "value": ""})
        await load(store)
        await gateway.call("/v3/kv/put", {"key": meta, "value": stray})
        with pytest.raises(StoreError) as caught:
            await EtcdStore.open(etcd.urls, namespace=namespace)
    finally:
        await store.close()
        await gateway.close()
    assert f"`{namespace}meta` in {store.name} is damaged: " in str(caught.value)
    assert namespace in str(caught.value.hint)
