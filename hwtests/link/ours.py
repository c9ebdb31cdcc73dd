"""Two daemons of ours, each with the share of one machine, and the link between them."""

import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dorad.control.client import Client
from dorad.control.errors import ControlError
from dorad.control.messages import (
    DATAFLOW_OPEN,
    DATAFLOW_START,
    DATAFLOW_WAIT,
    LinkTls,
    Ref,
    Share,
    Start,
    Wait,
)
from hwtests.bench.process import MeasurementError
from hwtests.link.cases import Case, Times, parse
from hwtests.link.certificates import issue
from hwtests.link.network import LOOPBACK, Network, free_port
from hwtests.localrobots.robot import LocalRobot

NODES = Path(__file__).parent / "nodes"
READY_S = 30.0
DEADLINE_S = 40.0


class Pair:
    """The machines `one` and `two`. They stay up for all measurements."""

    def __init__(self, folder: Path, network: Network = LOOPBACK) -> None:
        self.folder = folder
        self._network = network
        enter = {"one": network.enter_one, "two": network.enter_two}
        self.robots = {
            name: LocalRobot(name, folder / f"{network.name[0]}-{name}", words)
            for name, words in enter.items()
        }

    @contextmanager
    def up(self) -> Iterator[None]:
        """Run both daemons."""
        try:
            for robot in self.robots.values():
                robot.start()
            yield
        finally:
            for robot in self.robots.values():
                robot.end()

    def measure(self, case: Case, scale: float) -> Times:
        """Run one dataflow over both.

        Raises:
            MeasurementError: it failed, or was late.
        """
        with tempfile.TemporaryDirectory(prefix="run-", dir=self.folder) as text:
            times = Path(text, "times")
            flow = dataflow(case, case.count(scale), times)
            placement = {"sender": "one", "receiver": "two"}
            try:
                self.run(flow, placement, case.scheme, until="receiver")
            except ControlError as error:
                logs = "\n".join(robot.tail() for robot in self.robots.values())
                raise MeasurementError(f"{case}: {error}\n{logs}") from error
            return parse(times.read_text())

    def run(
        self, flow: dict[str, Any], placement: Mapping[str, str], scheme: str, until: str
    ) -> None:
        """Start a dataflow over both, wait until it has ended where `until` runs, and stop it.

        Raises:
            ControlError: it did not start, or not end in time.
        """
        with self.running(flow, placement, scheme) as (run_id, clients):
            ended = Wait(dataflow=run_id, until="ended", timeout=DEADLINE_S)
            clients[placement[until]].call(DATAFLOW_WAIT, ended)

    @contextmanager
    def running(
        self, flow: dict[str, Any], placement: Mapping[str, str], scheme: str
    ) -> Iterator[tuple[str, dict[str, Client]]]:
        """Run a dataflow over both; yield its UUID and a client of each daemon.

        Raises:
            ControlError: it did not start.
        """
        run_id = str(uuid.uuid4())
        address = f"{scheme}/{self._network.two}:{free_port()}"
        tls = issue(self.folder) if scheme == "tls" else {}
        with ExitStack() as stack:
            clients = {
                name: stack.enter_context(Client(robot.socket))
                for name, robot in self.robots.items()
            }
            for name, client in clients.items():
                share = Share(
                    machine=name,
                    placement=dict(placement),
                    listen=[address] if name == "two" else [],
                    connect=[address] if name == "one" else [],
                    tls=LinkTls(**tls[name]) if tls else None,
                )
                start = Start(
                    descriptor=flow,
                    path=str(self.folder / "dataflow.yml"),
                    uuid=run_id,
                    share=share,
                    hold=READY_S,
                )
                client.call(DATAFLOW_START, start)
                stack.callback(client.stop, run_id, force=True)
            for client in clients.values():
                ready = Wait(dataflow=run_id, until="ready", timeout=READY_S)
                client.call(DATAFLOW_WAIT, ready)
            for client in clients.values():
                client.call(DATAFLOW_OPEN, Ref(dataflow=run_id))
            yield run_id, clients


def dataflow(case: Case, count: int, times: Path) -> dict[str, Any]:
    """Return the dataflow of one measurement."""
    send = f"{count} {case.size} {case.interval_s}"
    queue = {"source": "sender/out", "queue_size": 16, "queue_policy": "backpressure"}
    return {
        "nodes": [
            {"id": "sender", "path": f"{NODES}/sender.py", "args": send, "outputs": ["out"]},
            {
                "id": "receiver",
                "path": f"{NODES}/receiver.py",
                "args": f"{count} {times}",
                "inputs": {"x": queue},
            },
        ]
    }
