"""What the robot does for one run: dorad starts, changes, opens or stops it, or it is concluded."""

import logging
import time
from collections.abc import Mapping

import msgspec

from dorad.agent.assignments import runs as rules
from dorad.agent.assignments.runs import EndStatus, Present, Run, RunRecord
from dorad.agent.daemon import Daemon
from dorad.agent.identitystore import IdentityStore
from dorad.agent.store import AssignmentStore
from dorad.control.errors import ControlError
from dorad.control.messages import (
    DATAFLOW_OPEN,
    DATAFLOW_START,
    DATAFLOW_STOP,
    DATAFLOW_UPDATE,
    LinkPeer,
    Ref,
    Share,
    Start,
    Stop,
    Update,
)
from dorad.phrases import first_of

MAX_LINKS = 3
"""Links that one text names."""

_log = logging.getLogger(__name__)


class RunActions:
    """Carries out decisions about runs, and stores how far each has come."""

    def __init__(
        self, store: AssignmentStore, daemon: Daemon, identities: IdentityStore, boot: str
    ) -> None:
        """`boot` is the machine's boot id."""
        self._store = store
        self._daemon = daemon
        self._identities = identities
        self._boot = boot

    @property
    def present(self) -> Present:
        """What runs are compared with: this boot, and the identity of this robot."""
        return Present(self._boot, self._identities.version)

    async def act(self, record: RunRecord, action: rules.Action, runs: Mapping[str, Run]) -> None:
        """Carry out an action; `runs` is what dorad knows.

        Raises:
            ControlError: it has to be tried again.
        """
        match action:
            case rules.Start():
                await self._start(record, action, runs)
            case rules.Change():
                await self._change(record)
            case rules.Open():
                await self._open(record, runs)
            case rules.Stop():
                await self._stop(record, action.uuid)
            case rules.Conclude():
                self._conclude(record, action.status, "", runs)

    def keep_seen(self, record: RunRecord, runs: Mapping[str, Run]) -> RunRecord:
        """Store that dorad has accepted a run, if a kill kept the agent from it."""
        seen = rules.mark_seen(record, runs)
        if seen is not record:
            _log.debug("share of %s: dorad has accepted it before", record.order.dataflow)
            self._store.keep_run(seen)
        return seen

    async def _start(self, record: RunRecord, action: rules.Start, runs: Mapping[str, Run]) -> None:
        # Stored first: after a kill here, a run that has ended is known to be of this order.
        self._store.keep_run(rules.begin(record, self.present, action.previous))
        content, name = record.order.content, record.order.dataflow
        start = Start(
            descriptor=content.descriptor,
            path=content.path,
            name=None if name == content.uuid else name,
            env=content.env,
            uv=content.uv,
            allow_shell=content.allow_shell,
            exit_when_nodes_finish=content.exit_when_nodes_finish,
            params=content.params,
            uuid=content.uuid,
            share=self._with_tls(content.share),
            hold=action.hold,
        )
        client = await self._daemon.client()
        try:
            await client.call(DATAFLOW_START, start)
        except ControlError as error:
            # A share that has run before can run again: after a boot, a service may not be up yet.
            if error.code in rules.RETRIED or rules.has_run(record):
                raise
            _log.warning("share of %s cannot be started: %s", name, error)
            present = self._store.run(name)
            if present is not None and present.same_order(record.order):
                self._conclude(present, "failed", "; ".join(error.lines), runs)
        else:
            _log.info("started the share of %s (%s)", name, content.uuid)
            if (present := self._store.run(name)) is not None:
                self._store.keep_run(rules.mark_run(present, content.uuid))

    async def _change(self, record: RunRecord) -> None:
        content, name, trouble = record.order.content, record.order.dataflow, ""
        now = self.present
        update = Update(
            dataflow=content.uuid,
            descriptor=content.descriptor,
            share=self._with_tls(content.share),
            params=content.params,
            alive=record.order.alive,
        )
        client = await self._daemon.client()
        try:
            await client.call(DATAFLOW_UPDATE, update)
            _log.info("changed the share of %s to generation %d", name, record.order.generation)
        except ControlError as error:
            if error.code in rules.RETRIED:
                raise
            trouble = "; ".join(error.lines)
            _log.warning("share of %s cannot be changed: %s", name, error)
        if (present := self._store.run(name)) is not None:
            self._store.keep_run(rules.follow(present, record.order, now, trouble))

    async def _open(self, record: RunRecord, runs: Mapping[str, Run]) -> None:
        uuid = record.order.content.uuid
        client = await self._daemon.client()
        await client.call(DATAFLOW_OPEN, Ref(dataflow=uuid))
        if missing := links_missing({} if (state := runs[uuid].state) is None else state.links):
            _log.warning("started %s without %s", record.order.dataflow, missing)

    async def _stop(self, record: RunRecord, uuid: str) -> None:
        order = record.order
        stop = Stop(dataflow=uuid, grace=order.grace, force=order.force)
        client = await self._daemon.client()
        try:
            await client.call(DATAFLOW_STOP, stop)
        except ControlError as error:
            if error.code != "not-found":
                raise
            _log.debug("%s has ended meanwhile", uuid)

    def _conclude(
        self, record: RunRecord, status: EndStatus, reason: str, runs: Mapping[str, Run]
    ) -> None:
        run = runs.get(record.order.content.uuid)
        self._store.keep_run(rules.conclude(record, status, time.time(), reason, run))
        _log.info(
            "the share of %s is %s%s", record.order.dataflow, status, reason and f": {reason}"
        )

    def _with_tls(self, share: Share) -> Share:
        linked = bool(share.listen or share.connect)
        return msgspec.structs.replace(share, tls=self._identities.load().links if linked else None)


def links_missing(links: Mapping[str, LinkPeer]) -> str:
    """Return which links to other machines are not up, and why; empty if all are."""
    texts = [
        f"a link to `{name}`: {peer.reason or peer.state}"
        for name, peer in sorted(links.items())
        if peer.state != "up"
    ]
    return first_of(texts, MAX_LINKS)
