"""A store of each engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.fleet.store.engines import ENGINES, EtcdEngine, SqliteEngine, opened
from tests.fleet.store.etcdserver import Cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from dorafleet.store.model import Store


@pytest.fixture(scope="session")
def etcd(tmp_path_factory) -> Iterator[Cluster]:
    """One etcd for all tests that do not harm it."""
    cluster = Cluster(tmp_path_factory.mktemp("etcd"), 1)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


@pytest.fixture(scope="session", params=ENGINES)
def server(request) -> Cluster | None:
    """What the engine needs; of the session, so that no test is blamed for the process."""
    return request.getfixturevalue("etcd") if request.param == "etcd" else None


@pytest.fixture
def engine(server, tmp_path) -> SqliteEngine | EtcdEngine:
    return SqliteEngine(tmp_path) if server is None else EtcdEngine(server)


@pytest_asyncio.fixture
async def store(engine) -> AsyncIterator[Store]:
    async with opened(engine, engine.new_place()) as (found,):
        yield found
