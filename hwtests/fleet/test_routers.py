"""Robots that cannot reach each other, and are linked through a router on one of them."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwtests.fleet.enrolled import NODES, EnrolledFleet, enrolled
from hwtests.fleet.flows import FLOW_FILE, Flow
from hwtests.fleet.test_listening import COORDINATOR, SSHD, listening, scan
from hwtests.robots.effort import only_long
from hwtests.robots.shell import wait_until

ROUTER = "router"
PORT = 7447
PEER = f"tls/198.18.0.13:{PORT}"
"""The third robot."""
UNIT = """\
[Service]
ExecStart=/usr/lib/dorad/bin/python3 /opt/router.py /etc/router.json5
# It has the certificate of its machine.
User=dorad-agent
"""
AWAY_S = 8.0
SOON_S = 10.0
"""Within which data flows after the router's return, on a machine that is busy with much else."""

pytestmark = [only_long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def site(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[EnrolledFleet]:
    """Three robots; the first two reach the router on the third, and not each other."""
    with enrolled(deb, fleet_deb, 3, router=PEER) as found:
        there = found.robots["arm3"]
        there.push(NODES / "router.py", "/opt/router.py")
        there.write("/etc/router.json5", found.dorafleet("router"))
        there.write(f"/etc/systemd/system/{ROUTER}.service", UNIT)
        there.exec("systemctl", "daemon-reload")
        found.bed.network.split(1, 2)
        start_router(found)
        yield found


def start_router(site: EnrolledFleet) -> None:
    """Start the router, and wait until it listens."""
    there = site.robots["arm3"]
    there.exec("systemctl", "start", ROUTER)
    wait_until(lambda: PORT in listening(there), "the router listens")


def kill_router(site: EnrolledFleet) -> None:
    """End the router with SIGKILL."""
    site.robots["arm3"].sh(f"systemctl kill --signal=KILL {ROUTER}; systemctl stop {ROUTER}")


def what_is_said(site: EnrolledFleet, flow: Flow) -> dict[str, str]:
    """Return what each command says of the link from arm1 to arm2."""
    there = ("--coordinator-addr", "127.0.0.1")
    info = ("dora", "topic", "info", "-d", flow.name, "count/number", "--duration", "1")
    machines = site.machines()
    return {
        "topic info": site.server.attempt(*info, *there).stdout,
        "dora doctor": site.arm1.attempt("dora", "doctor").stdout,
        "dorafleet doctor": site.attempt("doctor").stdout,
        "status": "; ".join(machines["arm1"]["problems"]),
    }


def test_robots_that_cannot_reach_each_other_exchange_messages_through_a_router(
    site: EnrolledFleet,
) -> None:
    assert site.arm1.attempt("ping", "-c1", "-W1", site.arm2.address).returncode
    lossy = Flow("routed", sinks=("arm2", "arm3"), queue=10)
    kept = Flow("kept", policy="backpressure")
    with site.running(lossy), site.running(kept):
        before = site.pids(lossy), site.pids(kept)
        # Nothing listens for links but the router, and it answers only robots of the fleet.
        assert listening(site.arm1) == listening(site.arm2) == {SSHD}
        assert listening(site.robots["arm3"]) == {SSHD, PORT}
        assert scan(site.arm1, site.robots["arm3"]) == {SSHD, PORT}
        assert scan(site.arm2, site.server) == {SSHD, COORDINATOR}
        site.arm1.push(NODES / "plain.py", "/opt/plain.py")
        words = ("python3", "/opt/plain.py", site.robots["arm3"].address, str(PORT))
        encrypted, plain = site.arm1.exec(*words).splitlines()
        print(encrypted, plain)
        assert encrypted.startswith("tls failed") or encrypted == "tls b''"
        assert plain == "plain b''" or plain.startswith("plain b'\\x15\\x03")

        kill_router(site)
        reason = f"the connection to the router {PEER} was lost"
        wait_until(
            lambda: (
                all(reason in text for text in what_is_said(site, lossy).values() if text)
                and "routed has no link to arm2" in what_is_said(site, lossy)["status"]
            ),
            "every command says why",
            timeout=60,
            every=0.5,
        )
        print(what_is_said(site, lossy))
        time.sleep(AWAY_S)
        start_router(site)
        began = time.monotonic()
        for flow in (lossy, kept):
            site.flows_on(flow, within=30)
        for check in lossy.checks:
            report = site.wait_until_counted(lossy, check)
            flowed = site.gaps(lossy, check)[-1].ended - began
            print(f"{check}: data flowed {flowed:.1f} s after the router's return; {report}")
            assert flowed < SOON_S
            assert report.missing >= (AWAY_S - 2) * lossy.hz
        report = site.report(kept)
        assert (report.missing, report.repeated) == (0, 0)
        assert report.longest > AWAY_S - 1
        assert (site.pids(lossy), site.pids(kept)) == before
        wait_until(lambda: site.attempt("doctor").returncode == 0, "all is well", timeout=30)


def test_a_start_without_the_router_fails_with_the_reason_and_leaves_nothing(
    site: EnrolledFleet,
) -> None:
    flow = Flow("early")
    kill_router(site)
    try:
        site.server.write(FLOW_FILE, flow.text)
        there = ("--coordinator-addr", "127.0.0.1")
        words = ("dora", "start", FLOW_FILE, "--name", flow.name, "--detach", *there)
        done = site.server.attempt(*words, timeout=200)
        print(done.stdout, done.stderr)
        assert done.returncode == 1
        assert "`arm1` is not ready" in done.stderr
        reason = f"(the router {PEER} cannot be reached: nothing answers there: Connection refused)"
        assert reason in done.stderr.partition("error: ")[2]
        # It has said so all the time.
        assert reason in done.stderr.partition("note: the start waits for `arm1`: ")[2]
        wait_until(lambda: not any(site.pids(flow).values()), "nothing of it is left", timeout=30)
    finally:
        start_router(site)
    # The same start works now. A robot that boots without the router starts its nodes, and is
    # linked when the router is there.
    with site.running(flow):
        kill_router(site)
        site.arm1.reboot()
        wait_until(lambda: "count" in site.pids(flow)["arm1"], "its share runs", timeout=60)
        start_router(site)
        site.flows_on(flow, within=60)
        assert site.report(flow).restarts == 1
        site.wait_connected()
