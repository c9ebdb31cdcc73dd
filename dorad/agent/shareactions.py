"""What the robot does for one share: start, change, open, stop or conclude a run of dorad."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec

from dorad.agent import decide as rules
from dorad.agent.model import EndStatus, Present
from dorad.control.errors import ControlError
from dorad.control.messages import (
    DATAFLOW_OPEN,
    DATAFLOW_START,
    DATAFLOW_STOP,
    DATAFLOW_UPDATE,
    Ref,
    Start,
    Stop,
    Update,
)
from dorad.phrases import first_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.agent.daemon import Daemon
    from dorad.agent.identity import IdentityStore
    from dorad.agent.model import Run, ShareRecord
    from dorad.agent.store import ShareStore
    from dorad.control.messages import LinkPeer, Share

MAX_LINKS = 3
"""Links that one text names."""

_log = logging.getLogger(__name__)


class ShareActions:
    """Carries out decisions about shares, and stores how far each has come."""

    def __init__(
        self, store: ShareStore, daemon: Daemon, identities: IdentityStore, boot: str
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

    async def act(self, record: ShareRecord, action: rules.Action, runs: Mapping[str, Run]) -> None:
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

    def keep_seen(self, record: ShareRecord, runs: Mapping[str, Run]) -> ShareRecord:
        """Store that dorad has accepted a run, if a kill kept the agent from it."""
        seen = rules.mark_seen(record, runs)
        if seen is not record:
            _log.debug("share of %s: dorad has accepted it before", record.order.dataflow)
            self._store.keep(seen)
        return seen

    async def _start(
        self, record: ShareRecord, action: rules.Start, runs: Mapping[str, Run]
    ) -> None:
        # Stored first: after a kill here, a run that has ended is known to be of this order.
        self._store.keep(rules.begin(record, self.present, action.previous))
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
            present = self._store.records[name]
            if present.same_order(record.order):
                self._conclude(present, "failed", "; ".join(error.lines), runs)
        else:
            _log.info("started the share of %s (%s)", name, content.uuid)
            self._store.keep(rules.mark_run(self._store.records[name], content.uuid))

    async def _change(self, record: ShareRecord) -> None:
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
        present = self._store.records[name]
        self._store.keep(rules.follow(present, record.order, now, trouble))

    async def _open(self, record: ShareRecord, runs: Mapping[str, Run]) -> None:
        uuid = record.order.content.uuid
        client = await self._daemon.client()
        await client.call(DATAFLOW_OPEN, Ref(dataflow=uuid))
        if missing := links_missing({} if (state := runs[uuid].state) is None else state.links):
            _log.warning("started %s without %s", record.order.dataflow, missing)

    async def _stop(self, record: ShareRecord, uuid: str) -> None:
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
        self, record: ShareRecord, status: EndStatus, reason: str, runs: Mapping[str, Run]
    ) -> None:
        run = runs.get(record.order.content.uuid)
        self._store.keep(rules.conclude(record, status, time.time(), reason, run))
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
