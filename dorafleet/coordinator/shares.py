"""Make the shares of robots from a dataflow of the fleet. Pure functions."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from dorad.control.errors import ControlError
from dorad.control.messages import Share
from dorad.control.messages.agent import ShareContent, ShareSet
from dorafleet.coordinator.records import DataflowRecord, RobotAssignment
from dorafleet.inventory.model import Machine
from dorafleet.inventory.syntax import LINKS_USE

MAX_PORT = 65535

HOLD_MARGIN_S = 15.0
"""Seconds that a robot waits longer than the coordinator, which can name the late robot."""


def ports_for(
    robots: Iterable[str], machines: Mapping[str, Machine], used: Collection[tuple[str, int]]
) -> dict[str, int]:
    """Return the port of the link process on each robot: the first free one from `zenoh_port` on.

    `used` are the ports on robots that other dataflows have.

    Raises:
        ControlError: a robot has no port left.
    """
    ports: dict[str, int] = {}
    for robot in robots:
        first = machines[robot].zenoh_port
        port = next((p for p in range(first, MAX_PORT + 1) if (robot, p) not in used), None)
        if port is None:
            raise ControlError("refused", f"`{robot}` has no port left for another dataflow")
        ports[robot] = port
    return ports


def check_reachable(
    robots: Sequence[str], machines: Mapping[str, Machine], peer: str | None
) -> None:
    """Check that of each two robots one has an address that the other can connect to.

    With `peer` all connect to that endpoint instead.

    Raises:
        ControlError: names two robots that cannot be linked, or an endpoint without TLS.
    """
    if peer is not None:
        if len(robots) > 1:
            check_router(peer)
        return
    hidden = [robot for robot in robots if machines[robot].zenoh_addr is None]
    if len(hidden) > 1:
        raise ControlError(
            "refused",
            f"`{hidden[0]}` and `{hidden[1]}` cannot be linked: neither has an address",
            "give one of them `zenoh_addr` in the cluster file, or the cluster a `zenoh_peer`",
        )


def check_router(peer: str) -> None:
    """Check that links can use the router at an endpoint. Raises ControlError."""
    if not peer.startswith(LINKS_USE):
        raise ControlError(
            "refused",
            f"the robots cannot be linked: `zenoh_peer` is `{peer}`, and links have TLS",
            f"let the router listen with TLS, and write `zenoh_peer: {LINKS_USE}HOST:PORT`",
        )


def port_of(share: Share) -> int | None:
    """Return the port on which the link process of a share listens; None if it does not."""
    return int(share.listen[0].rpartition(":")[2]) if share.listen else None


def share_of(
    placement: dict[str, str],
    ports: Mapping[str, int],
    robot: str,
    machines: Mapping[str, Machine],
    peer: str | None,
) -> Share:
    """Return the share of a robot; with `peer`, all robots connect to that endpoint.

    `placement` has the machine of each node, `ports` all machines of the dataflow. Of two that both
    have an address, the later one connects to the earlier one.
    """
    share = Share(machine=robot, placement=placement)
    if len(ports) < 2:
        return share
    if peer is not None:
        share.connect, share.router = [peer], True
        return share
    own = machines[robot].zenoh_addr
    # A machine may have left the fleet since the start.
    known = {id_: port for id_, port in ports.items() if id_ in machines}
    anywhere = "[::]" if own is not None and own.version == 6 else "0.0.0.0"  # noqa: S104 - by TLS
    share.listen = [f"tls/{anywhere}:{ports[robot]}"]
    order = list(known)
    for other, port in known.items():
        address = machines[other].zenoh_addr
        later = own is None or order.index(other) < order.index(robot)
        if other != robot and address is not None and later:
            host = f"[{address}]" if address.version == 6 else str(address)
            share.connect.append(f"tls/{host}:{port}")
            share.connect_to.append(other)
    return share


def share_set(record: DataflowRecord, share: Share, epoch: int) -> ShareSet:
    """Return the request that makes a robot carry out its share."""
    enabled = record.enabled and record.running
    return ShareSet(
        epoch=epoch,
        generation=record.generation,
        dataflow=record.key,
        enabled=enabled,
        content=ShareContent(
            uuid=record.uuid,
            descriptor=record.descriptor,
            path=record.path,
            share=share,
            env=record.options.env,
            uv=record.options.uv,
            allow_shell=record.options.allow_shell,
            exit_when_nodes_finish=record.options.exit_when_nodes_finish,
            params={
                node: values
                for node, values in record.params.items()
                if record.placement.get(node) == share.machine
            },
        ),
        hold=record.hold + HOLD_MARGIN_S if enabled and not record.opened else None,
        grace=record.grace,
        force=record.force,
    )


def end_of(dataflow: str, uuid: str, robot: str, *, epoch: int, generation: int) -> ShareSet:
    """Return the request that ends a share which the store does not have."""
    return ShareSet(
        epoch=epoch,
        generation=generation,
        dataflow=dataflow,
        enabled=False,
        content=ShareContent(
            uuid=uuid,
            descriptor={"nodes": []},
            path="/",
            share=Share(machine=robot, placement={}),
        ),
    )


def share_request(
    dataflow: str,
    wanted: RobotAssignment,
    record: DataflowRecord | None,
    robot: str,
    machines: Mapping[str, Machine],
    peer: str | None,
    epoch: int,
) -> ShareSet:
    """Return the request that brings a robot to what it should run of a dataflow.

    It ends what it has if the run is not that of `record`, or goes on without this robot.
    """
    if record is None or record.uuid != wanted.uuid or robot not in record.ports:
        return end_of(dataflow, wanted.uuid, robot, epoch=epoch, generation=wanted.generation)
    share = share_of(record.placement, record.ports, robot, machines, peer)
    return share_set(record, share, epoch)
