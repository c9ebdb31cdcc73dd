"""Show a fleet: from nothing to one dataflow over three robots, a cut cable, and its healing."""

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dorad.control.client import Client
from hwtests.bench.process import MeasurementError
from hwtests.demo.fleet import NAMES, Fleet
from hwtests.demo.networks import robot_network

CUT_S = 5.0
FLOW_S = 3.0
RECOVER_S = 20.0
WORKER = NAMES.index("worker") + 1

console = Console(width=100)


def step(text: str, seconds: float | None = None) -> None:
    """Print one step, and how long it took."""
    console.print(f"  {text}" + ("" if seconds is None else f" [dim]({seconds:.1f} s)[/dim]"))


def show(fleet: Fleet, cut: float, flow: float) -> None:
    """Run the demonstration: cut the cable for `cut` seconds, between `flow` seconds of data.

    Raises:
        MeasurementError: something does not work.
    """
    began = time.monotonic()
    fleet.start_coordinator()
    step("dorafleet serve: the coordinator is ready, with its own authority")
    fleet.start_robots()
    took = fleet.wait(fleet.connected, "all are connected", every=0.3)
    step(f"{len(NAMES)} robots are enrolled with one-use tokens, and connected", took)

    started = time.monotonic()
    fleet.dora("start", str(fleet.folder / "dataflow.yml"), "--name", "demo", "--detach")
    step(
        "dora start: the nodes are placed by labels, one start barrier", time.monotonic() - started
    )
    for line in placement(fleet):
        step(f"    {line}")
    time.sleep(flow)

    worker = fleet.robots["worker"]
    fleet.network.cut(WORKER, worker)
    step(f"the cable of `worker` is cut for {cut:g} s: camera and sink continue")
    time.sleep(cut)
    seen = gaps(fleet)
    fleet.network.heal(WORKER, worker)
    recovered = fleet.wait(
        lambda: gaps(fleet) != seen, "data flows again", timeout=RECOVER_S, every=0.02
    )
    step("the cable is back, data flows again", recovered)
    time.sleep(flow)
    # The robot of the camera learns of some losses from the other one.
    fleet.wait(
        lambda: lost_of(fleet, "camera/image") >= missing_so_far(fleet),
        "every loss is counted",
        timeout=RECOVER_S,
    )
    counted = lost_of(fleet, "camera/image")
    fleet.dora("stop", "demo")
    step("dora stop: one stop for all robots")
    console.print(summary(fleet, counted, cut, recovered))
    console.print(f"from nothing to here: {time.monotonic() - began:.0f} s")


def placement(fleet: Fleet) -> list[str]:
    """Return where the nodes run."""
    found = fleet.dora("node", "list").splitlines()
    return [line.strip() for line in found if line.strip()]


def lost_of(fleet: Fleet, output: str) -> int:
    """Return how many messages of an output the robots have counted as lost.

    On the way from one to another, and in the queues of both: on a busy machine that of the
    receiver overflows, too.
    """
    lost = 0
    for robot in fleet.robots.values():
        with Client(robot.socket) as client:
            top = client.top()
        lost += sum(edge.dropped for edge in top.edges if edge.source.endswith(output))
        lost += sum(each.lost for each in top.links if each.output == output and each.outgoing)
    return lost


def missing_so_far(fleet: Fleet) -> int:
    """Return how many pictures the sink has noticed to be missing."""
    return sum(map(int, re.findall(r"late, (\d+) missing", printed(fleet, "sink"))))


def gaps(fleet: Fleet) -> list[str]:
    """Return what the sink has said about missing pictures."""
    return re.findall(r"at picture \d+: .* [1-9]\d* missing", printed(fleet, "sink"))


def printed(fleet: Fleet, node: str) -> str:
    """Return what a node has printed, from its log file."""
    files = fleet.folder.glob(f"out/*/log_{node}.jsonl")
    return "".join(path.read_text(errors="replace") for path in files)


def number(text: str, pattern: str) -> int:
    """Return the number in what a node has printed.

    Raises:
        MeasurementError: it has not printed that.
    """
    found = re.findall(pattern, text)
    if not found:
        raise MeasurementError(f"a node has not printed {pattern!r}: {text[-2000:]}")
    return int(found[-1])


def summary(fleet: Fleet, counted: int, cut: float, recovered: float) -> Table:
    """Return the table at the end; `counted` is what the robots have counted as lost.

    Raises:
        MeasurementError: the losses that were counted are not those that happened.
    """
    sent = number(printed(fleet, "camera"), r"sent (\d+) pictures")
    filtered = number(printed(fleet, "filter"), r"received (\d+) pictures")
    received = number(printed(fleet, "sink"), r"received (\d+) results")
    missing = number(printed(fleet, "sink"), r"results, (\d+) pictures are missing")
    if not 0 < received <= filtered or not 0 < missing <= sent - received:
        raise MeasurementError(f"{sent} sent, {filtered} filtered, {received} received, {missing}")
    if counted != missing:
        raise MeasurementError(f"{missing} pictures are missing, {counted} are counted as lost")
    table = Table(
        "edge", "policy", "received", "lost", "on the way at the stop", title="three robots"
    )
    on_the_way = f"{sent - filtered - missing:,}"
    table.add_row(
        "camera/image -> filter", "drop_oldest", f"{filtered:,}", f"{missing:,}", on_the_way
    )
    # The camera's edge has lost every picture that the sink misses.
    on_the_way = f"{filtered - received:,}"
    table.add_row("filter/brightness -> sink", "backpressure", f"{received:,}", "0", on_the_way)
    table.caption = f"cut for {cut:g} s; the next result came {recovered:.2f} s after it was healed"
    return table


def main() -> int:
    """Show it; return 1 if something does not work."""
    options = argparse.ArgumentParser(prog="python -m hwtests.demo", description=__doc__)
    options.add_argument("--loopback", action="store_true", help="without network namespaces")
    options.add_argument("--cut", type=float, default=CUT_S, help="seconds of the cut")
    options.add_argument("--flow", type=float, default=FLOW_S, help="seconds before and after it")
    given = options.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="df-") as folder,
        robot_network(len(NAMES), loopback=given.loopback) as found,
    ):
        console.print(f"[bold]A fleet on this machine[/bold]: {found.description}")
        fleet = Fleet(Path(folder), found)
        try:
            show(fleet, given.cut, given.flow)
        except MeasurementError as error:
            console.print(f"failed: {error}", markup=False, style="red", width=200)
            return 1
        finally:
            fleet.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
