"""The methods that an agent answers: its own, and those that it passes on to the daemon."""

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil

from dorad import __version__
from dorad.agent import terms
from dorad.agent.assignments.assignments import Assignments
from dorad.agent.daemon import Daemon
from dorad.agent.files import Files
from dorad.agent.identitystore import IdentityStore
from dorad.agent.reports import MAX_USUAL, Deltas
from dorad.agent.secrets import SecretFiles
from dorad.agent.store import AssignmentStore
from dorad.bell import Bell
from dorad.control import messages as m
from dorad.control.agentsettings import check, read_accepts, refusal
from dorad.control.errors import ControlError
from dorad.control.messages import METHODS, Nothing, TopicHeader
from dorad.control.messages import agent as a
from dorad.control.messages.releases import ReleaseOrder, ReleaseState
from dorad.control.session import Call, Handler, HandlerTable, StreamHandler, handles
from dorad.control.shortening import short_release, short_share
from dorad.diskspace import DiskWatch
from dorad.jitter import between
from dorad.release.machine import this_machine

_PROGRAMS = (m.DATAFLOW_START, m.DATAFLOW_UPDATE, m.NODE_ADD, m.NODE_REPLACE)
"""Methods of the daemon with which a coordinator would give it a program by another way than as a
share or a release."""
_PARAMS = (m.PARAM_SET, m.PARAM_DELETE)

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
        store: AssignmentStore,
        assignments: Assignments,
        changed: Bell,
        boot: str,
        on_attached: Callable[[float], None],
        room: Callable[[], int | None],
        disks: DiskWatch,
        secrets: SecretFiles,
        files: Files,
        settings: Path,
        upload_problem: Callable[[], str],
    ) -> None:
        """`changed` rings when the state of a share or a release has changed.

        `on_attached` gets the pause between tries that the coordinator asks for; `room` returns
        the bytes that are free for releases; `disks` are those that the robot writes to.
        `settings` is the file that says what this robot takes from its coordinator;
        `upload_problem` returns why it uploads no incidents.
        """
        self._identity = identity
        self._store = store
        self._assignments = assignments
        self._changed = changed
        self._boot = boot
        self._on_attached = on_attached
        self._room = room
        self._disks = disks
        self.refused_hand_overs = 0
        """Since the start of the agent."""
        self._hand_over_refusal = ""
        self._secrets = secrets
        self._files = files
        self._settings = settings
        self._upload_problem = upload_problem

    @handles(a.AGENT_ATTACH)
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
            self._assignments.forget_epochs()
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
            arms=True,
            time=time.time(),
            epoch=before.epoch if same else 0,
            audit=before.audit if identity.authority == before.authority else "",
            revocations=now.revocations,
            arch=machine.arch,
            python=machine.python,
            glibc=machine.glibc,
            cores=float(len(os.sched_getaffinity(0))),
            memory=psutil.virtual_memory().total,
            shares=[short_share(each, MAX_USUAL) for each in self._assignments.reported.values()],
            releases=[
                short_release(each, MAX_USUAL) for each in self._assignments.releases.values()
            ],
            secrets=self._secrets.held(identity.robot),
            accepts=read_accepts(self._settings),
        )

    @handles(a.AGENT_FETCH)
    async def fetch(self, _call: Call, params: a.FilesFetch) -> m.Nothing:
        """Open a connection for the files of a release that was ordered, and that lacks some."""
        if not any(
            state.release == params.release and state.waiting == "files" and not state.refused
            for state in self._assignments.releases.values()
        ):
            raise ControlError(
                "refused", f"this robot waits for no files of release {params.release[:12]}"
            )
        self._files.fetch(params.ticket)
        return m.Nothing()

    @property
    def notice(self) -> str:
        """What an operator should know: hand-overs that were refused."""
        count = self.refused_hand_overs
        if not count:
            return ""
        return f"hand-overs that were refused: {count}; the last: {self._hand_over_refusal}"

    @handles(a.AGENT_REMEMBER)
    async def remember(self, _call: Call, params: a.Remember) -> a.Remembered:
        """Keep the head of the audit, so that a tail that is cut off later is detected."""
        before = self._store.memory
        self._store.remember(terms.remember(before, params))
        return a.Remembered(time=time.time(), audit=before.audit)

    @handles(a.AGENT_WATCH)
    async def watch(self, _call: Call, params: a.AgentWatch) -> AsyncIterator[a.AgentReport]:
        """Report changes, and a heartbeat."""
        deltas, loop = Deltas(), asyncio.get_running_loop()
        accepts: a.Accepts | None = None
        heartbeat = max(params.heartbeat, MIN_HEARTBEAT_S)
        while True:
            before, accepts = accepts, read_accepts(self._settings)
            now = self._now(accepts.problem)
            changed, removed = deltas.take(now.shares)
            yield a.AgentReport(
                time=time.time(),
                shares=changed,
                removed=removed,
                releases=deltas.take_releases(now.releases),
                daemon=now.problem,
                room=self._room(),
                warnings=now.warnings,
                accepts=None if accepts == before else accepts,
            )
            # Not all robots at one time.
            pause = between(0.8 * heartbeat, heartbeat)
            due = loop.time() + pause
            await asyncio.sleep(min(REPORT_INTERVAL_S, pause))
            differs = partial(self._differ, now, accepts.problem)
            await self._changed.until(differs, max(0.0, due - loop.time()))

    def _now(self, mistake: str) -> _Now:
        return _Now(
            self._assignments.reported,
            self._assignments.releases,
            self._assignments.problem,
            self._warnings(mistake),
        )

    def _warnings(self, mistake: str) -> list[str]:
        warnings = [each.text for each in self._disks.low()]
        refuses = mistake and f"it refuses what it is to run: {mistake}"
        uploads = self._upload_problem()
        notices = (self._store.notice, self._store.trouble, self.notice, refuses, uploads)
        return [*warnings, *self._secrets.problems.values(), *filter(None, notices)]

    def _differ(self, before: _Now, mistake: str) -> bool:
        return before != self._now(mistake)

    @handles(a.AGENT_RENEW)
    async def renew(self, _call: Call, _params: Nothing) -> a.Csr:
        """Make a new key."""
        try:
            return a.Csr(csr=self._identity.renew())
        except OSError as error:
            raise _not_stored("the new key", error) from None

    @handles(a.AGENT_CERTIFY)
    async def certify(self, _call: Call, params: a.Certificates) -> Nothing:
        """Use the certificate for the new key. The dialer notices, and connects again with it."""
        try:
            self._identity.certify(params.chain, params.authority)
        except OSError as error:
            raise _not_stored("the new certificate", error) from None
        # The links of running dataflows take it, too.
        self._assignments.wake()
        return Nothing()

    @handles(a.AGENT_HANDOVER)
    async def hand_over(self, _call: Call, params: a.HandOver) -> a.Trust:
        """Trust the authority that follows, if the present one has signed it."""
        before = self._identity.version
        try:
            trust = self._identity.hand_over(params, time.time())
        except OSError as error:
            raise _not_stored("the new authority", error) from None
        except ControlError as error:
            self.refused_hand_overs += 1
            self._hand_over_refusal = error.message[:MAX_REFUSAL]
            _log.warning("%s", error.message)
            self._changed.ring()
            raise
        if self._identity.version != before:
            # Links trust both issuers from now on, or only the new one.
            self._assignments.wake()
        return trust

    @handles(a.SHARE_SET)
    async def set(self, _call: Call, params: a.ShareSet) -> a.ShareState:
        """Store a share and carry it out."""
        if params.enabled:
            share, accepts = params.content.share, read_accepts(self._settings)
            given = {
                f"{node}/{key}": value
                for node, values in params.content.params.items()
                for key, value in values.items()
            }
            why = refusal(accepts, params.dataflow, share.own_nodes, given, share, inline=True)
            self._check(accepts, why)
        return self._assignments.order(params)

    def check_program(self) -> None:
        """Raise ControlError if this robot does not run whatever its coordinator gives it."""
        accepts = read_accepts(self._settings)
        why = refusal(msgspec.structs.replace(accepts, nodes=None), "", [""], {}, inline=True)
        if not why and accepts != a.Accepts():
            why = (
                "[agent] of its dorad.toml bounds what it runs, which comes as a share or a release"
            )
        self._check(accepts, why)

    async def check_param(
        self, daemon: Daemon, params: m.ParamSet | m.ParamRef
    ) -> m.ParamSet | m.ParamRef:
        """Return a request for a parameter; one that is checked names its dataflow by the UUID.

        Raises:
            ControlError: this robot does not take it, or the daemon does not know the dataflow.
        """
        accepts = read_accepts(self._settings)
        if not accepts.problem and accepts.params is None and accepts.max_param is None:
            return params
        client = await daemon.client()
        info = (await client.call(m.DATAFLOW_INFO, m.Ref(dataflow=params.dataflow))).info
        value = params.value if isinstance(params, m.ParamSet) else None
        given = {f"{params.node}/{params.key}": value}
        self._check(accepts, refusal(accepts, info.name or info.uuid, [], given))
        return msgspec.structs.replace(params, dataflow=info.uuid)

    def _check(self, accepts: a.Accepts, why: str) -> None:
        try:
            check(accepts, self._settings, why)
        except ControlError as error:
            _log.warning("%s", error.message)
            raise

    @handles(a.AGENT_SECRETS)
    async def change_secrets(self, _call: Call, params: a.SecretsChange) -> a.SecretsHeld:
        """Store and remove secrets. Dataflows that wait for one start soon."""
        self._assignments.check_epoch(params.epoch)
        robot = self._identity.load().robot
        held = self._secrets.change(robot, params.puts, params.removes)
        self._assignments.try_again()
        self._changed.ring()
        return held

    @handles(a.SHARE_OPEN)
    async def open(self, _call: Call, params: a.ShareRef) -> a.ShareState:
        """Open the start barrier of a share."""
        return self._assignments.open(params)

    @handles(a.RELEASE_ORDER)
    async def order_release(self, _call: Call, params: ReleaseOrder) -> ReleaseState:
        """Store an order about a release and carry it out."""
        return self._assignments.order_release(params)

    @handles(a.SHARE_REMOVE)
    async def remove(self, _call: Call, params: a.ShareRef) -> Nothing:
        """Forget a share."""
        self._assignments.remove(params)
        return Nothing()


def _not_stored(what: str, error: OSError) -> ControlError:
    why = f"{what} cannot be stored: {error.strerror}"
    _log.warning("%s", why)
    return ControlError("refused", why)


def handlers(
    methods: AgentMethods, daemon: Daemon, streaming: Daemon
) -> Mapping[str, Handler | StreamHandler]:
    """Return the handler of each method: the agent's own, and all of the daemon's.

    The streams of clients go over the connection `streaming`: however many there are, the
    coordinator still follows this robot.
    """
    passed_on = {
        name: _passing(method, streaming if method.stream and not method.report else daemon)
        for name, method in METHODS.items()
    }
    for method in (*_PROGRAMS, *_PARAMS):
        passed_on[method.name] = _checked(methods, daemon, passed_on[method.name])
    return passed_on | HandlerTable.of(methods)


def _checked(methods: AgentMethods, daemon: Daemon, handler: Any) -> Handler:
    """Return a handler that checks first whether this robot takes that."""

    async def call(call: Call, params: m.Struct) -> m.Struct:
        if isinstance(params, m.ParamSet | m.ParamRef):
            params = await methods.check_param(daemon, params)
        else:
            methods.check_program()
        answer: m.Struct = await handler(call, params)
        return answer

    return call


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
