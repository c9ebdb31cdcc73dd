"""Certificates of robots that have expired, were revoked, or belong to another robot or fleet."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dorad.agent import keys
from dorad.control.tls import Identity
from dorad.link.admission import Refusal
from dorafleet.ca.authority import open_authority
from hwtests.fleet.enrolled import CLUSTER, UNIT, EnrolledFleet
from hwtests.fleet.flows import Flow
from hwtests.fleet.test_listening import LINK
from hwtests.robots import clock
from hwtests.robots.shell import wait_until

IDENTITY = "/var/lib/dorad-agent/identity"
CHAIN = f"{IDENTITY}/chain.pem"
FOREIGN = "/opt/foreign"
INTRUDER = Path(__file__).parents[2] / "tests/link/intruder.py"
ROUNDS = 50
"""How often the intruder sends."""
SERIAL = (
    "import sys; from cryptography import x509; "
    "print(x509.load_pem_x509_certificates(sys.stdin.buffer.read())[0].serial_number)"
)
GOOD_FOR_DAYS = 365


@contextmanager
def coordinator_at(robots: EnrolledFleet, days: float) -> Iterator[None]:
    """Let the coordinator live so many days from now, then in the present again."""
    clock.shift(robots.server, days * 86400)
    robots.server.exec("systemctl", "restart", UNIT)
    try:
        yield
    finally:
        clock.shift(robots.server, 0)
        robots.server.exec("systemctl", "restart", UNIT)


def enrol_days_ago(robots: EnrolledFleet, machine: str, days: float) -> None:
    """Enrol a robot again, as if it had been done in the past."""
    if not robots.clocks:
        pytest.skip("to set clocks wrong needs a compiler: apt-get install gcc libc6-dev")
    with coordinator_at(robots, -days):
        robots.dorafleet("enrol", CLUSTER, machine, "--again")


def serial(robots: EnrolledFleet, machine: str) -> str:
    """Return the serial number of the certificate that a robot has."""
    chain = robots.robots[machine].exec("cat", CHAIN).encode()
    return robots.server.exec("/usr/lib/dorad/bin/python3", "-c", SERIAL, stdin=chain)


def test_a_certificate_that_has_expired_30_days_ago_renews_itself(robots: EnrolledFleet) -> None:
    flow = Flow("renewal", policy="backpressure")
    with robots.running(flow):
        before = robots.pids(flow)
        enrol_days_ago(robots, "arm1", GOOD_FOR_DAYS + 30)
        expired = serial(robots, "arm1")
        robots.wait_connected()
        wait_until(lambda: serial(robots, "arm1") != expired, "it has another certificate")
        journal = robots.server.exec("journalctl", "-u", UNIT, "--no-pager", "--lines=200")
        assert "renewed the certificate of robot `arm1`" in journal
        # It connects with the new one, too, and dataflows have noticed nothing.
        robots.arm1.exec("systemctl", "restart", "dorad-agent")
        robots.wait_connected()
        robots.flows_on(flow)
        assert robots.report(flow).missing == 0
        after = robots.pids(flow)
        for nodes in (*before.values(), *after.values()):
            nodes.pop("dora.link", None)
        assert after == before
        assert robots.machines()["arm1"]["well"]


def test_a_certificate_that_is_too_old_is_refused_and_both_sides_say_so(
    robots: EnrolledFleet,
) -> None:
    enrol_days_ago(robots, "arm1", GOOD_FOR_DAYS + 100)
    wait_until(lambda: robots.states()["arm1"] == "refused", "arm1 is refused", timeout=60)
    said = robots.arm1.attempt("dorad-agent", "status").stdout
    print(said)
    assert "expired 100 days ago" in said
    found = robots.wait_for_machine("arm1", lambda each: each["problems"], "it says why")
    print(found["problems"])
    assert any("expired 100 days ago" in problem for problem in found["problems"])
    robots.dorafleet("enrol", CLUSTER, "arm1", "--again")
    robots.wait_connected()


def test_a_revoked_robot_is_refused_and_both_sides_say_why(robots: EnrolledFleet) -> None:
    flow = Flow("revoked", source="arm2", sinks=("arm2",))
    with robots.running(flow):
        before = robots.pids(flow)
        robots.dorafleet("revoke", "arm2")
        wait_until(lambda: robots.states()["arm2"] == "refused", "arm2 is refused", timeout=30)
        said = robots.arm2.attempt("dorad-agent", "status").stdout
        print(said)
        assert "revoked" in said
        found = robots.wait_for_machine("arm2", lambda each: each["problems"], "it says why")
        assert any("revoked" in problem for problem in found["problems"])
        # Also after both have started again.
        robots.server.exec("systemctl", "restart", UNIT)
        robots.arm2.exec("systemctl", "restart", "dorad-agent")
        wait_until(lambda: robots.states()["arm2"] == "refused", "it is refused", timeout=60)
        robots.flows_on(flow)
        assert robots.pids(flow) == before
        robots.dorafleet("enrol", CLUSTER, "arm2")
        robots.wait_connected()
        assert robots.pids(flow) == before


def intrude(robots: EnrolledFleet, dataflow: str, folder: str, authority: str) -> tuple[int, int]:
    """Pose as arm2 at the link of arm1, on arm3; return its connections, and what it received."""
    files = (f"{folder}/{name}.pem" for name in (authority, "chain", "key"))
    words = (f"tls/{robots.arm1.address}:{LINK}", dataflow, "arm1", "arm2", *files)
    stranger = robots.robots["arm3"]
    stranger.push(INTRUDER, "/opt/intruder.py")
    python = ("/usr/lib/dorad/bin/python3", "/opt/intruder.py")
    *lines, received = stranger.exec(*python, *words, stdin=b"\n" * ROUNDS).splitlines()
    assert lines[0] == "ready"
    assert len(lines) == 1 + ROUNDS
    return int(lines[-1].split()[1]), len(json.loads(received))


def link_log(robots: EnrolledFleet, flow: Flow) -> str:
    return robots.arm1.attempt("dora", "logs", flow.name, "--node", "dora.link").stdout


def test_only_its_own_certificate_of_this_fleet_gives_a_robot_a_link(
    robots: EnrolledFleet, tmp_path: Path
) -> None:
    stranger = robots.robots["arm3"]
    key = keys.new_key()
    other_fleet = open_authority(tmp_path / "ca")
    chain = other_fleet.issue(keys.request_for("arm2", key), Identity("robot", "arm2")).chain
    for name, text in {"key": key, "chain": chain, "issuer": other_fleet.certificate}.items():
        stranger.write(f"{FOREIGN}/{name}.pem", text)
    # It accepts the authority of this fleet, so that only its own certificate is foreign.
    stranger.sh(f"cp {IDENTITY}/issuer.pem {FOREIGN}/ours.pem")
    flow = Flow("certified", policy="backpressure")
    with robots.running(flow):
        before = robots.pids(flow)
        listed = map(json.loads, robots.dora("list", "--format", "json").splitlines())
        (uuid,) = (each["uuid"] for each in listed if each["name"] == flow.name)
        assert intrude(robots, uuid, FOREIGN, "issuer") == (0, 0)
        assert intrude(robots, uuid, FOREIGN, "ours") == (0, 0)
        # With the certificate of arm3 it is a machine of the fleet, and none of the dataflow.
        assert intrude(robots, uuid, IDENTITY, "issuer") == (0, 0)
        wait_until(
            lambda: Refusal.UNKNOWN.value in link_log(robots, flow), "the link says whose it was"
        )
        robots.dorafleet("revoke", "arm3")
        assert intrude(robots, uuid, IDENTITY, "issuer") == (0, 0)
        robots.flows_on(flow)
        assert robots.report(flow).missing == 0
        assert robots.pids(flow) == before
        assert "no link" not in "".join(robots.machines()["arm1"]["problems"])
        assert "Traceback" not in link_log(robots, flow)
    robots.dorafleet("enrol", CLUSTER, "arm3")
    robots.wait_connected()


def test_a_copy_of_a_robots_disk_is_refused_and_named(robots: EnrolledFleet) -> None:
    """Beside the robot, and while it is off; then it gets its own place back."""
    first, copy = robots.arm1, robots.arm2
    flow = Flow("cloned", source="arm1", sinks=("arm1",))
    disk, kept = "/var/lib/dorad-agent", "/root/own-agent.tar"
    with robots.running(flow):
        before = robots.pids(flow)
        copy.exec("systemctl", "stop", "dorad-agent")
        copy.sh(f"tar -C {disk} -cf {kept} .")
        archive = first.sh(f"cd {disk} && tar -c identity* | base64 -w0")
        copy.write("/root/agent.tar.base64", archive)
        copy.sh(f"cd {disk} && rm -rf identity* && base64 -d /root/agent.tar.base64 | tar -x")
        copy.exec("systemctl", "start", "dorad-agent")
        found = robots.wait_for_machine("arm1", lambda each: each["clone"], "the copy is named")
        print(found["clone"])
        assert copy.address in found["clone"]
        assert found["address"] == first.address
        assert "`dorafleet revoke arm1`" in found["clone"]
        assert robots.states()["arm1"] == "connected"
        wait_until(
            lambda: "another machine has the id" in copy.attempt("dorad-agent", "status").stdout,
            "the copy says why it is refused",
        )
        assert "cloned" not in copy.exec("dora", "list")
        robots.flows_on(flow)
        # While the robot is off, the copy gets nothing either.
        first.exec("systemctl", "stop", "dorad-agent")
        robots.wait_for_machine("arm1", lambda each: each["state"] == "unreachable", "it is away")
        copy.exec("systemctl", "restart", "dorad-agent")
        wait_until(
            lambda: "another machine has the id" in copy.attempt("dorad-agent", "status").stdout,
            "the copy is refused again",
        )
        assert robots.machines()["arm1"]["state"] == "unreachable"
        first.exec("systemctl", "start", "dorad-agent")
        wait_until(lambda: robots.states()["arm1"] == "connected", "arm1 is back", timeout=60)
        assert robots.pids(flow) == before
    copy.exec("systemctl", "stop", "dorad-agent")
    copy.sh(f"rm -rf {disk}/identity* && tar -C {disk} -xf {kept}")
    copy.exec("systemctl", "start", "dorad-agent")
    robots.wait_connected()
