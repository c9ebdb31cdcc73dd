"""Alerts of robots that run a release: a slow output is one, a boot is none."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwtests.fleet.enrolled import CLUSTER
from hwtests.fleet.releasing import Site, confirmed
from hwtests.robots.shell import wait_until

CONFIG = "/etc/dorafleet/dorafleet.toml"
RECEIVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[2], "a") as file:
            file.write(self.path + "\\n")
        self.send_response(204)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""Writes the path of each notification into a file."""

LEARN_S = 80
"""Seconds after which a robot knows the usual rate of an output, with time to spare."""


@pytest.fixture(scope="module")
def site(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Site]:
    """Two robots that have confirmed a first release."""
    with confirmed(deb, fleet_deb, 2) as found:
        yield found


def alerts(site: Site, *options: str) -> list[dict[str, Any]]:
    """Return the alerts of the fleet."""
    words = ("alerts", "--json", "--coordinator-addr", "127.0.0.1", *options)
    found: list[dict[str, Any]] = json.loads(site.fleet.dorafleet(*words))
    return found


def usual(site: Site, machine: str) -> bool:
    """Return whether a robot knows the usual rate of `count`."""
    state = site.fleet.robots[machine].sh(
        'python3 -c "import sqlite3; print(*sqlite3.connect('
        "'file:/var/lib/dorad/state.db?mode=ro', uri=True)"
        ".execute('SELECT snapshot FROM dataflow'))\""
    )
    return '"usual":50' in state or '"usual":49' in state


@pytest.mark.timeout(400)
def test_an_output_that_stops_is_one_alert_that_ends_when_it_goes_on(site: Site) -> None:
    assert alerts(site) == []
    wait_until(lambda: usual(site, "arm1"), "the rate is known", timeout=LEARN_S)
    pid = site.pids("arm1")["count"]
    site.fleet.arm1.exec("kill", "-STOP", str(pid))
    wait_until(lambda: alerts(site), "the alert is there", timeout=40)
    (alert,) = alerts(site)
    assert (alert["robots"], alert["node"], alert["cause"]) == (["arm1"], "count", "output-slow")
    assert alert["text"].startswith("count/number 0.0/s, was ")
    site.fleet.arm1.exec("kill", "-CONT", str(pid))
    wait_until(lambda: not alerts(site), "the alert is over", timeout=40)


@pytest.mark.timeout(400)
def test_a_robot_that_boots_after_a_power_cut_raises_no_alert_about_its_dataflow(
    site: Site,
) -> None:
    before = {each["id"] for each in alerts(site, "--past")}
    site.fleet.arm1.power_cut()
    site.fleet.arm1.start()
    site.fleet.wait_connected()
    wait_until(lambda: site.pids("arm1").keys() >= {"count", "grip"}, "it runs", timeout=60)
    wait_until(lambda: not alerts(site), "all is well", timeout=60)
    new = [each for each in alerts(site, "--past") if each["id"] not in before]
    assert [each for each in new if each["cause"] not in ("unreachable", "daemon-away")] == []


def configure(site: Site, text: str) -> None:
    """Write the configuration of the coordinator as the page says, and let systemd reload it."""
    server = site.fleet.server
    server.write(CONFIG, text)
    server.sh(f"chown root:dorafleet {CONFIG}; chmod 640 {CONFIG}")
    server.exec("systemctl", "reload", "dorafleet")


@pytest.mark.timeout(400)
def test_systemctl_reload_takes_other_receivers_and_keeps_the_old_ones_after_a_mistake(
    site: Site,
) -> None:
    server = site.fleet.server
    unit = ("systemctl", "show", "-P", "MainPID", "dorafleet")
    pid = server.exec(*unit)
    server.write("/root/receiver.py", RECEIVER)
    for port in (7001, 7002):
        run = f"systemd-run --unit receiver{port} python3 /root/receiver.py {port} /root/{port}.txt"
        server.sh(run)
    wait_until(
        lambda: all(port in server.exec("ss", "-ltn") for port in ("7001", "7002")),
        "the receivers listen",
    )

    def sends_to(port: int) -> None:
        server.sh(f"rm -f /root/*.txt; touch /root/{port}.txt")
        site.fleet.dorafleet("alerts", "--test", "--coordinator-addr", "127.0.0.1")
        assert server.exec("sh", "-c", "grep -l /hook /root/*.txt").split() == [f"/root/{port}.txt"]

    for port in (7001, 7002):
        configure(site, f'[alerts]\nwebhook = "http://127.0.0.1:{port}/hook"\n')
        sends_to(port)
    configure(site, '[alerts]\nwebhoook = "http://127.0.0.1:7001/hook"\n')
    assert "webhoook" in site.fleet.attempt("doctor", CLUSTER).stdout
    journal = server.exec("journalctl", "--unit", "dorafleet", "--no-pager")
    assert "the old configuration stays in use" in journal
    sends_to(7002)
    assert server.exec("systemctl", "is-active", "dorafleet").strip() == "active"
    assert server.exec(*unit) == pid
