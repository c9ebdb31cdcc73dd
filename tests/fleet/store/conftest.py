"""A store of each engine."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from dorafleet.store.model import Store
from tests.fleet.store.engines import ENGINES, EtcdEngine, SqliteEngine, opened
from tests.fleet.store.etcdserver import Cluster


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
