"""Both engines behind one face, so that the same tests run against both."""

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from dorafleet.store.etcd import EtcdStore
from dorafleet.store.model import Store
from dorafleet.store.sqlite import SqliteStore
from tests.fleet.store.etcdserver import Cluster

ENGINES = ("sqlite", "etcd")


class SqliteEngine:
    """New files in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new_place(self) -> Path:
        return self._folder / f"{uuid.uuid4().hex}.db"

    async def open(self, place: Path) -> Store:
        return await SqliteStore.open(place)

    async def open_rival(self, place: Path, first: Store) -> Store:
        """A second candidate: SQLite has but one process."""
        return first


class EtcdEngine:
    """Separate namespaces in one cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def new_place(self) -> str:
        return f"/{uuid.uuid4().hex}/"

    async def open(self, place: str) -> Store:
        return await EtcdStore.open(self._cluster.urls, namespace=place)

    async def open_rival(self, place: str, first: Store) -> Store:
        return await self.open(place)


@asynccontextmanager
async def opened(engine, place, *, rivals: int = 0) -> AsyncIterator[list[Store]]:
    """A store at a place, and handles of other processes to it."""
    async with AsyncExitStack() as stack:
        stores = [await engine.open(place)]
        stack.push_async_callback(stores[0].close)
        for _ in range(rivals):
            stores.append(await engine.open_rival(place, stores[0]))
            stack.push_async_callback(stores[-1].close)
        yield stores
