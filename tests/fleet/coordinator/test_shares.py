"""Who listens and who connects to whom, and the ports of links."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.control.errors import ControlError
from dorafleet.coordinator.shares import check_reachable, ports_for, share_of, share_set
from dorafleet.inventory.model import Machine

from .test_verdicts import record


def machine(id_, address, port=5456):
    return Machine(
        id_, id_, zenoh_addr=None if address is None else ip_address(address), zenoh_port=port
    )


IDS = ("a", "b", "c", "d", "e")
fleets = st.lists(st.booleans(), min_size=1, max_size=5).map(
    lambda known: {
        id_: machine(id_, f"10.0.0.{n}" if has else None)
        for n, (id_, has) in enumerate(zip(IDS, known, strict=False), start=1)
    }
)


@given(fleets)
def test_each_two_machines_are_connected_once_or_it_is_refused(machines):
    ids = tuple(machines)
    dataflow = record(ports=dict.fromkeys(ids, 5456), placement={id_: id_ for id_ in ids})
    if sum(each.zenoh_addr is None for each in machines.values()) > 1:
        with pytest.raises(ControlError, match="cannot be linked"):
            check_reachable(ids, machines, None)
        return
    check_reachable(ids, machines, None)
    shares = {id_: share_of(dataflow.placement, dataflow.ports, id_, machines, None) for id_ in ids}
    for one, other in combinations(ids, 2):
        there = f"tls/{machines[other].zenoh_addr}:5456" in shares[one].connect
        back = f"tls/{machines[one].zenoh_addr}:5456" in shares[other].connect
        assert there + back == 1
    for share in shares.values():
        assert bool(share.listen) == (len(ids) > 1)


def test_all_connect_to_the_peer_of_the_file():
    machines = {"a": machine("a", None), "b": machine("b", None)}
    dataflow = record(ports={"a": 1, "b": 2})
    share = share_of(dataflow.placement, dataflow.ports, "a", machines, "tls/10.0.0.9:7447")
    assert (share.listen, share.connect) == ([], ["tls/10.0.0.9:7447"])
    assert share.router, "a router passes messages on between its clients only"
    check_reachable(tuple(machines), machines, "tls/10.0.0.9:7447")


def test_links_through_a_router_without_tls_are_refused():
    machines = {"a": machine("a", None), "b": machine("b", None)}
    with pytest.raises(ControlError, match=r"`zenoh_peer` is `tcp/10\.0\.0\.9:7447`"):
        check_reachable(("a", "b"), machines, "tcp/10.0.0.9:7447")
    check_reachable(("a",), machines, "tcp/10.0.0.9:7447")


def test_addresses_of_version_6_are_in_brackets():
    machines = {"a": machine("a", "fd00::1"), "b": machine("b", "fd00::2")}
    dataflow = record(ports={"a": 5456, "b": 5457})
    share = share_of(dataflow.placement, dataflow.ports, "b", machines, None)
    assert share.listen == ["tls/[::]:5457"]
    assert share.connect == ["tls/[fd00::1]:5456"]


def used_by(dataflow):
    return {*dataflow.ports.items()}


def test_each_dataflow_of_a_machine_has_its_own_port():
    machines = {"a": machine("a", "10.0.0.1", 7000), "b": machine("b", "10.0.0.2", 65535)}
    first = record(ports=ports_for(["a"], machines, []))
    second = record(ports=ports_for(["a"], machines, used_by(first)))
    assert [first.ports["a"], second.ports["a"]] == [7000, 7001]
    assert ports_for(["a"], machines, used_by(second)) == {"a": 7000}
    with pytest.raises(ControlError, match="`b` has no port left"):
        ports_for(["b"], machines, {("b", 65535)})


def test_only_a_start_whose_barrier_is_closed_is_held():
    machines = {"arm1": machine("arm1", "10.0.0.1"), "arm2": machine("arm2", "10.0.0.2")}
    share = share_of(record().placement, record().ports, "arm1", machines, None)
    assert share_set(record(), share, 3).hold == 24
    assert share_set(record(opened=True), share, 3).hold is None
    stop = share_set(record(enabled=False, grace=2.0), share, 3)
    assert (stop.enabled, stop.hold, stop.grace) == (False, None, 2.0)
