"""Rollouts to robots with the package: with the agent's sandbox, real sshd and power cuts."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwtests.fleet.enrolled import CLUSTER, enrolled
from hwtests.fleet.releasing import (
    ALL,
    COORDINATOR_HOME,
    CRASH,
    FOLDER,
    QUICK,
    RELEASES,
    Site,
)
from hwtests.robots.effort import times
from hwtests.robots.shell import wait_until

MODEL = 24 << 20
"""Bytes of a large file."""


@pytest.fixture(scope="module")
def site(robots_possible: None, deb: Path, fleet_deb: Path) -> Iterator[Site]:
    """Two robots that trust the operator, and have confirmed a first release."""
    with enrolled(deb, fleet_deb, 2) as fleet:
        found = Site(fleet)
        untrusted = found.build("first = event")
        # No key is trusted at first: the rollout ends with the reason.
        refused = found.start(untrusted, *ALL)
        assert refused.returncode == 1
        assert "is not in /etc/dorad/allowed_signers" in refused.stdout
        assert found.rollout()["summary"]["phase"] == "refused"
        assert fleet.arm1.sh("ls /var/lib/dorad/releases/objects 2>/dev/null || true") == ""
        found.trust()
        again = found.start(untrusted, *ALL)
        assert again.returncode == 0, again.stderr
        yield found


def test_a_release_replaces_one_node_and_an_undo_brings_the_old_one_back(site: Site) -> None:
    before = {machine: site.pids(machine) for machine in site.fleet.robots}
    old = site.running("arm1")
    new = site.build("second = event")
    planned = site.fleet.dorafleet("plan", new)
    assert "nodes replaced: grip" in planned
    assert "nodes untouched: check1, count" in planned
    assert site.start(new).returncode == 0
    for machine in site.fleet.robots:
        assert site.running(machine) == new
        assert site.files(machine)["grip"] == new
        site.check_untouched(machine, before[machine])
        assert site.pids(machine)["grip"] != before[machine]["grip"]
    undone = site.fleet.attempt("rollout", "undo", "--reason", "slips", *QUICK[:2])
    assert undone.returncode == 0, undone.stderr
    for machine in site.fleet.robots:
        assert site.running(machine) == old
        assert site.files(machine)["grip"] == old
        site.check_untouched(machine, before[machine])
    assert site.fleet.attempt("drift").returncode == 0


def test_of_a_release_that_crashes_only_the_canary_gets_it_and_goes_back_by_itself(
    site: Site,
) -> None:
    old = site.running("arm1")
    before = {machine: site.pids(machine) for machine in site.fleet.robots}
    bad = site.build(CRASH)
    failed = site.start(bad, "--healthy-deadline", "20s")
    assert failed.returncode == 1
    why = "node grip has failed: exited with code 1: RuntimeError: slips"
    assert f"arm1: reverted: {why}\n" in failed.stdout
    assert site.robot_states() == {"arm1": "reverted", "arm2": "waiting"}
    wait_until(lambda: site.running("arm1") == old, "the old release runs", timeout=30)
    site.check_untouched("arm1", before["arm1"])
    assert site.pids("arm2") == before["arm2"]
    assert bad not in site.fleet.arm2.exec("ls", "/var/lib/dorad/releases")
    # Only `--retry` would try it there again.
    again = site.start(bad, "--robots", "arm1")
    assert "failed" in again.stdout + again.stderr
    assert site.running("arm1") == old


def test_a_busy_robot_switches_only_when_its_lease_ends(site: Site) -> None:
    arm2 = site.fleet.arm2
    lease = ("dora", "busy", "holds a cup", "--", "sleep", "600")
    arm2.exec("systemd-run", "--quiet", "--collect", "--unit=cup", *lease)
    wait_until(lambda: "holds a cup" in arm2.exec("dora", "busy", "list"), "it is busy")
    old, new = site.running("arm2"), site.build("third = event")
    site.start_in_background(new, *ALL)
    wait_until(lambda: site.running("arm1") == new, "the other one switches", timeout=60)
    state = site.state("arm2")
    assert (state["phase"], state["waiting"], state["running"]) == ("staged", "busy", old)
    assert "holds a cup" in site.fleet.attempt("rollout", "status").stdout
    arm2.exec("systemctl", "stop", "cup")
    site.wait_until_followed()
    assert site.running("arm2") == new


def test_a_robot_whose_lease_ends_while_the_rollout_is_paused_waits_for_the_resume(
    site: Site,
) -> None:
    arm2 = site.fleet.arm2
    lease = ("dora", "busy", "holds a plate", "--", "sleep", "600")
    arm2.exec("systemd-run", "--quiet", "--collect", "--unit=plate", *lease)
    wait_until(lambda: "holds a plate" in arm2.exec("dora", "busy", "list"), "it is busy")
    old, new = site.running("arm2"), site.build("paused = event")
    site.start_in_background(new, *ALL)
    site.wait_until_runs("arm1", new)
    wait_until(lambda: site.state("arm2")["waiting"] == "busy", "it has the order")
    site.fleet.dorafleet("rollout", "pause")
    wait_until(lambda: site.state("arm2")["waiting"] == "switch", "the order is taken back")
    arm2.exec("systemctl", "stop", "plate")
    wait_until(lambda: not site.state("arm2")["leases"], "it is no longer busy")
    # A second connection: what the robot now has is the order of the coordinator.
    arm2.exec("systemctl", "restart", "dorad-agent")
    site.fleet.wait_connected()
    assert "paused" in site.rollout()["summary"]["phase"] or site.rollout()["summary"]["paused"]
    assert site.files("arm2")["grip"] == old
    assert site.state("arm2")["phase"] == "staged"
    site.fleet.dorafleet("rollout", "resume")
    site.wait_until_runs("arm2", new)
    site.wait_until_followed()


def test_of_two_operators_who_start_at_once_one_wins_and_the_other_learns_who(
    site: Site,
) -> None:
    one, two = site.build("operator = 1"), site.build("operator = 2")
    for path, release in (("/tmp/one", one), ("/tmp/two", two)):
        words = ("dorafleet", "rollout", "start", release, *QUICK, *ALL)
        site.fleet.server.write(path, f"{shlex.join(words)} 2>&1 || echo refused\n")
    site.fleet.server.sh("for each in one two; do sh /tmp/$each >/tmp/$each.out & done; wait")
    said = [site.fleet.server.exec("cat", f"/tmp/{each}.out") for each in ("one", "two")]
    print(*said, sep="\n---\n")
    lost = [text for text in said if text.endswith("refused\n")]
    runs = {site.wait_for_confirmed(machine) for machine in site.fleet.robots}
    assert len(lost) == 1
    assert runs == {two if lost[0] is said[0] else one}


def test_a_power_cut_in_the_middle_of_a_transfer_costs_no_byte_twice(site: Site) -> None:
    arm1, network = site.fleet.arm1, site.fleet.bed.network
    site.fleet.server.sh(f"head -c {MODEL} /dev/urandom >{FOLDER}/model.bin")
    old, new = site.running("arm1"), site.build("model = event")
    before = network.traffic(arm1.number)
    network.loss(arm1.number, 5)
    site.start_in_background(new, "--robots", "arm1")
    arrived = f"cat {RELEASES}/incoming/* 2>/dev/null | wc -c"
    wait_until(lambda: int(arm1.sh(arrived)) > MODEL // 8, "a part has arrived", timeout=60)
    arm1.power_cut()
    network.repair(arm1.number)
    arm1.start()
    assert site.wait_for_confirmed("arm1") in (old, new)
    site.wait_until_followed(timeout=180)
    site.wait_until_runs("arm1", new, timeout=120)
    sent = network.traffic(arm1.number) - before
    print(f"{sent} bytes on the cable")
    assert sent < 1.5 * MODEL
    site.fleet.server.exec("rm", f"{FOLDER}/model.bin")


@pytest.mark.parametrize("phase", ["staged", "switching", "probation"])
def test_after_a_power_cut_in_a_switch_a_robot_runs_exactly_one_release(
    site: Site, phase: str
) -> None:
    for number in range(times(1, 3)):
        cut_in(phase, site, site.build(f"cut = '{phase} {number}'"))


def cut_in(phase: str, site: Site, new: str) -> None:
    """Cut the power of a robot in a phase of a switch, and check what it runs afterwards."""
    arm1, old = site.fleet.arm1, site.running("arm1")
    site.start_in_background(new, "--robots", "arm1")
    # The next phase, too: one may be over between two looks.
    phases = ("staged", "switching", "probation")
    site.wait_for_phase("arm1", new, *phases[phases.index(phase) : phases.index(phase) + 2])
    arm1.power_cut()
    arm1.start()
    assert site.wait_for_confirmed("arm1") in (old, new)
    site.wait_until_followed()
    site.wait_until_runs("arm1", new)
    assert site.one_confirmed("arm1") == new
    assert site.fleet.attempt("drift").returncode == 0


def test_a_changed_byte_does_not_run(site: Site) -> None:
    # On the robot: the file is removed, and comes again.
    new = site.build("changed = 'byte'")
    site.fleet.dorafleet("release", "push", new, CLUSTER)
    objects = "/var/lib/dorad/releases/objects"
    site.fleet.arm1.sh(
        f"file=$(grep -rl \"changed = 'byte'\" {objects}); sed -i s/byte/bite/ $file"
    )
    assert site.start(new, *ALL).returncode == 0
    assert site.fleet.arm1.attempt("grep", "-rq", "bite", "/var/lib/dorad/releases").returncode == 1
    assert site.running("arm1") == site.running("arm2") == new
    # On the operator's machine: it is not sent.
    bad = site.build("changed = 'again'")
    store = "/root/.local/share/dorafleet/releases/objects"
    server = site.fleet.server
    server.sh(
        f"file=$(grep -rl \"= 'again'\" {store}); chmod u+w $file; sed -i s/again/agian/ $file"
    )
    verified = site.fleet.attempt("release", "verify", bad)
    assert verified.returncode == 1
    assert "damaged" in verified.stderr
    assert site.fleet.attempt("release", "push", bad, CLUSTER).returncode == 1


def test_what_a_revoked_key_has_signed_is_refused(site: Site) -> None:
    fleet = site.fleet
    fleet.server.exec("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/mallory")
    fleet.dorafleet("release", "trust", CLUSTER, "--key", "/root/mallory.pub", "--name", "m")
    old, new = site.running("arm1"), site.build("fourth = event", key="/root/mallory")
    fleet.dorafleet("release", "push", new, CLUSTER)
    fleet.dorafleet("release", "trust", CLUSTER, "--revoke", "--key", "/root/mallory.pub")
    failed = site.start(new, *ALL)
    assert failed.returncode == 1
    assert "is revoked" in failed.stdout + failed.stderr
    assert site.rollout()["summary"]["phase"] == "refused"
    assert site.files("arm1")["grip"] == site.files("arm2")["grip"] == old


def only_difference(site: Site) -> dict[str, Any]:
    """Wait until the drift of the fleet has a row, and return it: there is no other."""
    rows: list[dict[str, Any]] = []

    def differs() -> bool:
        rows[:] = map(json.loads, site.fleet.attempt("drift", "--json").stdout.splitlines())
        return bool(rows)

    wait_until(differs, "it is seen")
    (row,) = rows
    return row


def test_drift_names_the_way_back_of_a_dataflow_that_was_stopped_on_a_robot(site: Site) -> None:
    site.fleet.arm2.exec("dora", "stop", "arm")
    row = only_difference(site)
    assert (row["robot"], row["dataflow"]) == ("arm2", "arm")
    words = row["way_back"].split()
    assert words[:3] == ["dorafleet", "rollout", "start"]
    done = site.fleet.attempt(*words[1:], "--allow-lower", *QUICK, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    site.fleet.flows_on(site.flows["arm2"])
    assert site.fleet.attempt("drift").returncode == 0


def test_drift_names_the_way_back_of_a_node_that_was_stopped_on_a_robot(site: Site) -> None:
    site.fleet.arm2.exec("dora", "node", "stop", "grip", "-d", "arm")
    row = only_difference(site)
    assert (row["robot"], row["dataflow"], row["what"]) == ("arm2", "arm", "node")
    assert row["way_back"] == "dora node restart grip -d arm2/arm"
    site.fleet.arm2.exec("dora", "node", "restart", "grip", "-d", "arm")
    wait_until(lambda: site.fleet.attempt("drift").returncode == 0, "it is as desired")


def test_one_command_and_one_file_reach_all_robots(site: Site) -> None:
    fleet = site.fleet
    assert fleet.dorafleet("exec", CLUSTER, "--", "uname", "-s") == (
        "✓ arm1, arm2: 2 machines, exit code 0\n  Linux\n"
    )
    fleet.arm2.write("/etc/odd", "")
    odd = fleet.attempt("exec", CLUSTER, "--", "test", "!", "-e", "/etc/odd")
    assert odd.returncode == 1
    fleet.server.write("/root/calibration.json", "{}\n")
    fleet.dorafleet("push", CLUSTER, "/root/calibration.json", "/etc/cal.json", "--mode", "0640")
    for robot in fleet.robots.values():
        found = robot.exec("stat", "-c", "%a %U %s", "/etc/cal.json")
        assert found == "640 root 3\n"
        assert robot.sh("ls /etc | grep -c cal.json") == "1\n"


def test_the_service_of_the_coordinator_sends_files_and_writes_a_backup_in_its_sandbox(
    site: Site,
) -> None:
    fleet = site.fleet
    fleet.arm2.power_cut()
    new = site.build("absent = event")
    site.start(new, *ALL)
    site.wait_until_runs("arm1", new)
    site.give_releases()
    fleet.arm2.start()
    site.wait_until_runs("arm2", new, timeout=120)
    assert site.files("arm2")["grip"] == new
    assert fleet.attempt("drift").returncode == 0
    path = f"{COORDINATOR_HOME}/fleet.backup"
    assert json.loads(fleet.dorafleet("backup", path, "--json"))["entries"] > 0
    assert fleet.server.exec("stat", "-c", "%U %a", path).split() == ["dorafleet", "600"]
    refused = fleet.attempt("backup", "/root/fleet.backup")
    assert refused.returncode == 1
    assert f"`dorafleet backup {path}`" in refused.stderr
    assert fleet.dorafleet("audit", "verify").startswith("ok")
