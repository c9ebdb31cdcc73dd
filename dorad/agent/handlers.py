"""The methods that an agent answers: its own, and those that it passes on to the daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import random
import time
from typing import TYPE_CHECKING

import msgspec
import psutil

from dorad import __version__
from dorad.agent.reports import Deltas
from dorad.control import messages as m
from dorad.control.messages import METHODS, Nothing
from dorad.control.messages import agent as a

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dorad.agent.daemon import Daemon
    from dorad.agent.identity import IdentityStore
    from dorad.agent.shares import Shares
    from dorad.agent.store import ShareStore
    from dorad.control.session import Call, Handler, StreamHandler

REPORT_INTERVAL_S = 1.0
"""Minimum time between two reports."""
MIN_HEARTBEAT_S = 0.1

_log = logging.getLogger(__name__)


class AgentMethods:
    """Answers the methods of `AGENT_METHODS` on one connection."""

    def __init__(
        self,
        identity: IdentityStore,
        store: ShareStore,
        shares: Shares,
        changed: asyncio.Condition,
        boot: str,
        on_attached: Callable[[a.Attach], None],
        on_certified: Callable[[], None],
    ) -> None:
        """`changed` is notified when the state of a share has changed."""
        self._identity = identity
        self._store = store
        self._shares = shares
        self._changed = changed
        self._boot = boot
        self._on_attached = on_attached
        self._on_certified = on_certified

    async def attach(self, _call: Call, params: a.Attach) -> a.Attached:
        """Obey this coordinator, unless a newer one was obeyed."""
        identity = self._identity.load()
        before, audit = self._store.epoch, self._store.audit
        self._shares.obey(params.epoch, params.audit)
        self._on_attached(params)
        return a.Attached(
            robot=identity.robot,
            version=__version__,
            boot_id=self._boot,
            time=time.time(),
            epoch=before,
            audit=audit,
            arch=platform.machine(),
            cores=float(len(os.sched_getaffinity(0))),
            memory=psutil.virtual_memory().total,
            shares=list(self._shares.states.values()),
        )

    async def watch(self, _call: Call, params: a.AgentWatch) -> AsyncIterator[a.AgentReport]:
        """Report changes, and a heartbeat."""
        deltas, problem = Deltas(), ""
        heartbeat = max(params.heartbeat, MIN_HEARTBEAT_S)
        while True:
            changed, removed = deltas.take(self._shares.states)
            problem = self._shares.problem
            yield a.AgentReport(time=time.time(), shares=changed, removed=removed, daemon=problem)
            # Not all robots at one time.
            pause = random.uniform(0.8, 1.0) * heartbeat  # noqa: S311 - not a secret
            due = asyncio.get_running_loop().time() + pause
            await asyncio.sleep(min(REPORT_INTERVAL_S, pause))
            seen = self._shares.states
            try:
                async with asyncio.timeout_at(due), self._changed:
                    await self._changed.wait_for(lambda: True)
            except TimeoutError:
                continue

    async def renew(self, _call: Call, _params: Nothing) -> a.Csr:
        """Make a new key."""
        return a.Csr(csr=self._identity.renew())

    async def certify(self, _call: Call, params: a.Certificates) -> Nothing:
        """Use the certificate for the new key."""
        self._identity.certify(params.chain, params.authority)
        self._on_certified()
        return Nothing()

    async def set(self, _call: Call, params: a.ShareSet) -> a.ShareState:
        """Store a share and carry it out."""
        return self._shares.order(params)

    async def open(self, _call: Call, params: a.ShareRef) -> a.ShareState:
        """Open the start barrier of a share."""
        return self._shares.open(params)

    async def remove(self, _call: Call, params: a.ShareRef) -> Nothing:
        """Forget a share."""
        self._shares.remove(params)
        return Nothing()
