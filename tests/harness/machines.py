"""Two `dorad`s on this machine that stand for two machines, and a dataflow over both."""

import uuid
from pathlib import Path
from typing import Any

from dorad.control import messages as m

from .daemon import Daemon
from .ports import free_port

HOLD_S = 50.0


class Machines:
    """Machines `alpha` and `beta`, whose links meet on loopback."""

    def __init__(self, alpha: Daemon, beta: Daemon) -> None:
        self.daemons = {"alpha": alpha, "beta": beta}
        self.uuid = str(uuid.uuid4())
        self.port = free_port()
        self.scheme = "tcp"

    def share(self, machine: str, placement: dict[str, str], **changed: Any) -> m.Share:
        """Return the share of a machine: alpha listens, beta connects."""
        ends: dict[str, Any] = {
            "listen" if machine == "alpha" else "connect": [f"{self.scheme}/127.0.0.1:{self.port}"]
        }
        return m.Share(machine=machine, placement=placement, **(ends | changed))

    def start(
        self,
        machine: str,
        folder: Path,
        nodes: list[dict[str, Any]],
        placement: dict[str, str],
        *,
        hold: float | None = HOLD_S,
        **changed: Any,
    ) -> None:
        """Start the share of one machine."""
        params = m.Start(
            descriptor={"nodes": nodes},
            path=str(folder / "dataflow.yml"),
            name="flow",
            uuid=self.uuid,
            share=self.share(machine, placement, **changed),
            hold=hold,
        )
        with self.daemons[machine].client() as client:
            client.call(m.DATAFLOW_START, params)

    def open(self) -> None:
        """Wait until both are ready, then open both start barriers."""
        for each in self.daemons.values():
            with each.client() as client:
                state = client.wait(self.uuid, until="ready", timeout=40)
                assert state.ready, state
        for each in self.daemons.values():
            with each.client() as client:
                client.open_barrier(self.uuid)

    def start_both(
        self, folder: Path, nodes: list[dict[str, Any]], placement: dict[str, str]
    ) -> None:
        """Start both shares with one start barrier."""
        for machine in self.daemons:
            self.start(machine, folder, nodes, placement)
        self.open()

    def update(
        self,
        nodes: list[dict[str, Any]],
        placement: dict[str, str],
        tls: dict[str, m.LinkTls] | None = None,
        params: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """Change both shares, alpha first."""
        for machine, each in self.daemons.items():
            share = self.share(machine, placement, tls=tls[machine] if tls else None)
            with each.client() as client:
                client.update(self.uuid, {"nodes": nodes}, share, params)

    def state(self, machine: str) -> m.DataflowState:
        """Return the state of a share."""
        with self.daemons[machine].client() as client:
            return client.wait(self.uuid, until="spawned", timeout=30)

    def ended(self, machine: str) -> m.DataflowState:
        """Wait for the end of a share."""
        with self.daemons[machine].client() as client:
            return client.wait(self.uuid, until="ended", timeout=50)

    def node(self, machine: str, name: str) -> m.NodeInfo:
        """Return one node of a share."""
        with self.daemons[machine].client() as client:
            (found,) = [node for node in client.nodes(self.uuid) if node.node == name]
            return found
