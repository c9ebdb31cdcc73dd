"""The part of a fake agent that obeys orders about releases, as a robot with a fate does."""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from dorad.control.errors import ControlError
from dorad.control.messages.releases import Evidence, Lease, ReleaseOrder, ReleaseState
from dorad.control.session import Call


class FakeReleases:
    """What a robot has of releases. It survives connections, like an agent's file."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self.states: dict[str, ReleaseState] = {}
        self.orders: list[ReleaseOrder] = []
        """All orders that it has received, in order."""
        self.has_files = True
        """Whether the files of every release are there."""
        self.fate = "confirmed"
        """What a switch to a release becomes: confirmed, reverted, stuck, or stays `switching`."""
        self.bad: set[str] = set()
        """Releases to which `fate` applies; empty for all."""
        self.refusal = ""
        self.trouble: ControlError | None = None
        """Raised instead of storing an order."""
        self.switches: list[str] = []
        """The releases to which it has switched, in order."""
        self._last: dict[str, ReleaseOrder] = {}

    async def order(self, _call: Call, params: ReleaseOrder) -> ReleaseState:
        if self.trouble is not None:
            raise self.trouble
        known = self._last.get(params.dataflow)
        if known is not None and (params.epoch, params.generation) < (
            known.epoch,
            known.generation,
        ):
            raise ControlError("conflict", f"generation {params.generation} is old")
        if known is None or params.generation != known.generation:
            self.orders.append(params)
            self._last[params.dataflow] = params
            self._take(params)
        return self.states[params.dataflow]

    def forget_epochs(self) -> None:
        """Let orders of any term follow."""
        for name, order in self._last.items():
            self._last[name] = msgspec.structs.replace(order, epoch=0)

    def runs(self, dataflow: str, release: str, sequence: int = 1) -> None:
        """Begin with a release that was confirmed before."""
        self._change(
            dataflow,
            "confirmed",
            release=release,
            running=release,
            confirmed=release,
            sequence=sequence,
        )

    def get_files(self, dataflow: str = "pick") -> None:
        """Receive the files that were missing."""
        self.has_files = True
        if dataflow in self._last:
            self._go_on(self._last[dataflow])

    def lease(self, dataflow: str = "pick", reason: str | None = "picks box 7") -> None:
        """Begin with work that must not be interrupted; None ends it."""
        leases = [] if reason is None else [Lease(id="1", reason=reason, owner="arm", since=0.0)]
        self._change(dataflow, self.states[dataflow].phase, leases=leases)
        if reason is None and dataflow in self._last:
            self._go_on(self._last[dataflow])

    def finish(self, fate: str, dataflow: str = "pick") -> None:
        """End a switch that stays where it is."""
        self._end(self._last[dataflow], fate)

    def report(self, dataflow: str, phase: str, **fields: Any) -> None:
        """Report something, whatever is true."""
        self._change(dataflow, phase, **fields)

    def _take(self, order: ReleaseOrder) -> None:
        state = self.states.get(order.dataflow)
        running = "" if state is None else state.running
        if order.release is None:
            self._change(
                order.dataflow, "confirmed", release="", running="", confirmed="", reason="",
                generation=order.generation, waiting="", group=None, previous_group=None,
            )  # fmt: skip
            return
        if state is not None and state.phase == "probation":
            if order.committed and order.release == running:
                self._change(order.dataflow, "probation", generation=order.generation)
                self._end(order, "confirmed")
                return
            if order.release == state.confirmed:
                # In the middle of its switch it turns round.
                running = order.release
                self._change(order.dataflow, "reverting", running=running)
        if not order.enabled or (not running and state is not None and state.confirmed):
            running = state.confirmed if order.enabled and state is not None else ""
            self._change(order.dataflow, "confirmed", running=running, generation=order.generation)
            if not order.enabled or order.release == running:
                return
        phase = "confirmed" if order.release == running else "pending"
        self._change(
            order.dataflow, phase, release=order.release, generation=order.generation,
            epoch=order.epoch, rollout=order.rollout, reason="", refused=False, waiting="",
            evidence=[],
        )  # fmt: skip
        self._go_on(order)

    def _go_on(self, order: ReleaseOrder) -> None:
        """Do all that the order and the files allow."""
        state = self.states[order.dataflow]
        if state.phase not in ("pending", "staged"):
            return
        if self.refusal and order.release not in ("", state.confirmed):
            self._change(order.dataflow, "pending", refused=True, reason=self.refusal)
            return
        if not self.has_files:
            self._change(order.dataflow, "pending", waiting="files")
            return
        waits = "busy" if order.switch else "switch"
        armed = order.arm > 0 and not state.leases
        self._change(order.dataflow, "staged", waiting=waits, armed=armed)
        if not order.switch or (state.leases and order.busy == "wait"):
            return
        assert order.release is not None
        self.switches.append(order.release)
        self._change(
            order.dataflow,
            "switching",
            running=order.release,
            waiting="",
            failed={},
            ended={},
            armed=False,
        )
        fate = self.fate if not self.bad or order.release in self.bad else "confirmed"
        if fate != "switching":
            self._end(order, fate)

    def _end(self, order: ReleaseOrder, fate: str) -> None:
        state = self.states[order.dataflow]
        release = order.release or ""
        if fate == "confirmed" and order.group is not None and not order.committed:
            self._change(order.dataflow, "probation", healthy=True)
            return
        if fate == "confirmed":
            self._change(
                order.dataflow, "confirmed", confirmed=release, previous=state.confirmed,
                restarted=["grip"], healthy=False, group=order.group, previous_group=state.group,
            )  # fmt: skip
            return
        evidence = [Evidence(check="node grip", ok=False, text="3 restarts in 20 s")]
        self._change(
            order.dataflow,
            fate,
            running=state.confirmed if fate == "reverted" else "",
            evidence=evidence,
            healthy=False,
            reason="node grip failed",
        )

    def _change(self, dataflow: str, phase: str, **fields: Any) -> None:
        state = self.states.get(dataflow) or ReleaseState(
            dataflow=dataflow, epoch=0, generation=0, phase="pending", since=0.0, release=""
        )
        self.states[dataflow] = msgspec.structs.replace(
            state, phase=phase, since=time.time(), **fields
        )
        self._report(dataflow)
