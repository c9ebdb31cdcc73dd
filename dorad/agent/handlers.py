"""The methods that an agent answers: its own, and those that it passes on to the daemon."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import psutil

from dorad import __version__
from dorad.agent import terms
from dorad.agent.reports import MAX_USUAL, Deltas
from dorad.control import messages as m
from dorad.control.errors import ControlError
from dorad.control.messages import METHODS, Nothing
from dorad.control.messages import agent as a
from dorad.control.session import HandlerTable
from dorad.control.shortening import short_release, short_share
from dorad.jitter import between
from dorad.release.machine import this_machine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from dorad.agent.daemon import Daemon
    from dorad.agent.identity import IdentityStore
    from dorad.agent.releases.releases import Releases
    from dorad.agent.secrets import SecretFiles
    from dorad.agent.shares import Shares
    from dorad.agent.store import ShareStore
    from dorad.bell import Bell
    from dorad.control.messages import TopicHeader
    from dorad.control.messages.releases import ReleaseOrder, ReleaseState
    from dorad.control.session import Call, Handler, StreamHandler
    from dorad.diskspace import DiskWatch

REPORT_INTERVAL_S = 1.0
"""Minimum time between two reports."""
MIN_HEARTBEAT_S = 0.1
MAX_REFUSAL = 300
"""Characters of the reason why a hand-over was refused."""

_log = logging.getLogger(__name__)


class _Now(NamedTuple):
    """What is reported."""

    shares: dict[str, a.ShareState]
    releases: dict[str, ReleaseState]
    problem: str
    warnings: list[str]


_MACHINE_ID = Path("/etc/machine-id")
_TRANSIENT_ID = Path("/run/machine-id")
"""systemd makes this file if the image has no machine id: then each boot has another one."""


def machine_id() -> str:
    """Return the id of this installation, empty if it has none that lasts."""
    if _TRANSIENT_ID.exists():
        return ""
    try:
        text = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        _log.debug("there is no machine id: %s", error)
        return ""
    return text if re.fullmatch("[0-9a-f]{32}", text) else ""


class AgentMethods:
    """Answers the methods of `AGENT_METHODS` on one connection."""

    def __init__(
        self,
        identity: IdentityStore,
        store: ShareStore,
        shares: Shares,
        releases: Releases,
        changed: Bell,
        boot: str,
        on_attached: Callable[[float], None],
        room: Callable[[], int | None],
        disks: DiskWatch,
        secrets: SecretFiles,
    ) -> None:
        """`changed` rings when the state of a share or a release has changed.

        `on_attached` gets the pause between tries that the coordinator asks for; `room` returns
        the bytes that are free for releases; `disks` are those that the robot writes to.
        """
        self._identity = identity
        self._store = store
        self._shares = shares
        self._releases = releases
        self._changed = changed
        self._boot = boot
        self._on_attached = on_attached
        self._room = room
        self._disks = disks
        self.refused_hand_overs = 0
        """Since the start of the agent."""
        self._hand_over_refusal = ""
        self._secrets = secrets

    async def attach(self, _call: Call, params: a.Attach) -> a.Attached:
        """Obey this coordinator, unless a newer one was obeyed."""
        identity, before = self._identity.load(), self._store.memory
        try:
            now = terms.obey(before, identity.fleet, identity.authority, params)
        except ControlError as error:
            _log.warning("coordinator %.80s is not obeyed: %s", params.coordinator, error.message)
            raise
        same = identity.fleet == before.fleet
        if not same or params.takes_over:
            # Before the term is stored: after a kill in between they are forgotten again.
            self._releases.forget_epochs()
            self._shares.forget_epochs()
        self._store.remember(now)
        why = ", because an operator says so" if params.takes_over else ""
        _log.info("coordinator %.80s attaches, epoch %d%s", params.coordinator, now.epoch, why)
        self._on_attached(params.pause)
        machine = this_machine()
        return a.Attached(
            robot=identity.robot,
            version=__version__,
            boot_id=self._boot,
            machine_id=machine_id(),
            groups=True,
            time=time.time(),
            epoch=before.epoch if same else 0,
            audit=before.audit if identity.authority == before.authority else "",
            revocations=now.revocations,
            arch=machine.arch,
            python=machine.python,
            glibc=machine.glibc,
            cores=float(len(os.sched_getaffinity(0))),
            memory=psutil.virtual_memory().total,
            shares=[short_share(each, MAX_USUAL) for each in self._shares.reported.values()],
            releases=[short_release(each, MAX_USUAL) for each in self._releases.states.values()],
            secrets=self._secrets.held(identity.robot),
        )

    @property
    def notice(self) -> str:
        """What an operator should know: hand-overs that were refused."""
        count = self.refused_hand_overs
        if not count:
            return ""
        return f"hand-overs that were refused: {count}; the last: {self._hand_over_refusal}"

    async def remember(self, _call: Call, params: a.Remember) -> a.Remembered:
        """Keep the head of the audit, so that a tail that is cut off later is detected."""
        before = self._store.memory
        self._store.remember(terms.remember(before, params))
        return a.Remembered(time=time.time(), audit=before.audit)

    async def watch(self, _call: Call, params: a.AgentWatch) -> AsyncIterator[a.AgentReport]:
        """Report changes, and a heartbeat."""
        deltas, loop = Deltas(), asyncio.get_running_loop()
        heartbeat = max(params.heartbeat, MIN_HEARTBEAT_S)
        while True:
            now = self._now()
            changed, removed = deltas.take(now.shares)
            yield a.AgentReport(
                time=time.time(),
                shares=changed,
                removed=removed,
                releases=deltas.take_releases(now.releases),
                daemon=now.problem,
                room=self._room(),
                warnings=now.warnings,
            )
            # Not all robots at one time.
            pause = between(0.8 * heartbeat, heartbeat)
            due = loop.time() + pause
            await asyncio.sleep(min(REPORT_INTERVAL_S, pause))
            differs = partial(self._differ, now)
            await self._changed.until(differs, max(0.0, due - loop.time()))

    def _now(self) -> _Now:
        return _Now(
            self._shares.reported, self._releases.states, self._shares.problem, self._warnings()
        )

    def _warnings(self) -> list[str]:
        warnings = [each.text for each in self._disks.low()]
        notices = (self._store.notice, self._store.trouble, self.notice)
        return [*warnings, *self._secrets.problems.values(), *filter(None, notices)]

    def _differ(self, before: _Now) -> bool:
        return before != self._now()

    async def renew(self, _call: Call, _params: Nothing) -> a.Csr:
        """Make a new key."""
        return a.Csr(csr=self._identity.renew())

    async def certify(self, _call: Call, params: a.Certificates) -> Nothing:
        """Use the certificate for the new key. The dialer notices, and connects again with it."""
        self._identity.certify(params.chain, params.authority)
        # The links of running dataflows take it, too.
        self._shares.wake()
        return Nothing()

    async def hand_over(self, _call: Call, params: a.HandOver) -> a.Trust:
        """Trust the authority that follows, if the present one has signed it."""
        before = self._identity.version
        try:
            found = self._identity.hand_over(params, time.time())
        except OSError as error:
            why = f"the new authority cannot be stored: {error.strerror}"
            _log.warning("%s", why)
            raise ControlError("refused", why) from None
        except ControlError as error:
            self.refused_hand_overs += 1
            self._hand_over_refusal = error.message[:MAX_REFUSAL]
            _log.warning("%s", error.message)
            self._changed.ring()
            raise
        if self._identity.version != before:
            # Links trust both issuers from now on, or only the new one.
            self._shares.wake()
        return found

    async def set(self, _call: Call, params: a.ShareSet) -> a.ShareState:
        """Store a share and carry it out."""
        return self._shares.order(params)

    async def change_secrets(self, _call: Call, params: a.SecretsChange) -> a.SecretsHeld:
        """Store and remove secrets. Dataflows that wait for one start soon."""
        self._shares.check_epoch(params.epoch)
        robot = self._identity.load().robot
        held = self._secrets.change(robot, params.puts, params.removes)
        self._shares.try_again()
        self._changed.ring()
        return held

    async def open(self, _call: Call, params: a.ShareRef) -> a.ShareState:
        """Open the start barrier of a share."""
        return self._shares.open(params)

    async def order_release(self, _call: Call, params: ReleaseOrder) -> ReleaseState:
        """Store an order about a release and carry it out."""
        return self._releases.order(params)

    async def remove(self, _call: Call, params: a.ShareRef) -> Nothing:
        """Forget a share."""
        self._shares.check_epoch(params.epoch)
        self._shares.remove(params)
        return Nothing()


def handlers(
    methods: AgentMethods, daemon: Daemon, streaming: Daemon
) -> Mapping[str, Handler | StreamHandler]:
    """Return the handler of each method: the agent's own, and all of the daemon's.

    The streams of clients go over the connection `streaming`: however many there are, the
    coordinator still follows this robot.
    """
    own = HandlerTable()
    own.call(a.AGENT_ATTACH, methods.attach)
    own.call(a.AGENT_REMEMBER, methods.remember)
    own.stream(a.AGENT_WATCH, methods.watch)
    own.call(a.AGENT_RENEW, methods.renew)
    own.call(a.AGENT_CERTIFY, methods.certify)
    own.call(a.AGENT_HANDOVER, methods.hand_over)
    own.call(a.AGENT_SECRETS, methods.change_secrets)
    own.call(a.SHARE_SET, methods.set)
    own.call(a.SHARE_OPEN, methods.open)
    own.call(a.SHARE_REMOVE, methods.remove)
    own.call(a.RELEASE_ORDER, methods.order_release)
    passed_on = {
        name: _passing(method, streaming if method.stream and not method.report else daemon)
        for name, method in METHODS.items()
    }
    return passed_on | own


def _passing(method: m.AnyMethod, daemon: Daemon) -> Handler | StreamHandler:
    """Return a handler that lets the daemon answer a method."""
    if isinstance(method, m.StreamMethod):

        async def stream(_call: Call, params: m.Struct) -> AsyncIterator[m.Struct]:
            client = await daemon.client()
            async with client.stream(method, params) as events:
                async for event in events:
                    yield event

        return stream
    if isinstance(method, m.CallMethod):

        async def call(_call: Call, params: m.Struct) -> m.Struct:
            client = await daemon.client()
            result: m.Struct = await client.call(method, params)
            return result

        return call

    async def frames(call: Call, params: m.Struct) -> AsyncIterator[tuple[TopicHeader, memoryview]]:
        assert isinstance(params, m.TopicSubscribe)
        client = await daemon.client()
        async with client.frames(params) as events:
            async for header, data in events:
                yield msgspec.structs.replace(header, stream=call.id), data

    return frames
