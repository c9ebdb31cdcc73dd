"""The coordinator's audit and its backups, under systemd."""

import re
from collections.abc import Iterator

import pytest

from hwtests.fleet.enrolled import UNIT, EnrolledFleet
from hwtests.fleet.flows import Flow
from hwtests.robots.shell import wait_until

FOLDER = "/var/lib/dorafleet"
STORE = f"{FOLDER}/coordinator.db"
SAFE = "/root/store"
BACKUP = f"{FOLDER}/fleet.backup"
CHANGE = """\
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as store:
    store.execute(sys.argv[2])
    assert store.execute("SELECT changes()").fetchone()[0] > 0
"""
STOP_AND_COPY = f"""\
systemctl stop {UNIT}
rm -rf {SAFE}
mkdir {SAFE}
cp -a {STORE}* {SAFE}/
"""
PUT_BACK = f"""\
systemctl stop {UNIT}
rm -f {STORE}*
cp -a {SAFE}/* {FOLDER}/
systemctl start {UNIT}
"""


@pytest.fixture
def damaged(robots: EnrolledFleet) -> Iterator[EnrolledFleet]:
    """A fleet whose coordinator is stopped; its store is put back at the end.

    Before, all robots were told the end of the audit.
    """
    for robot in robots.robots.values():
        robot.exec("systemctl", "restart", "dorad-agent")
    robots.wait_connected()
    robots.server.sh(STOP_AND_COPY)
    yield robots
    robots.wait_connected()  # each has obeyed this one, and takes the other for a copy
    robots.server.sh(PUT_BACK)
    take_over(robots)
    assert robots.attempt("audit", "verify").returncode == 0


def take_over(robots: EnrolledFleet) -> None:
    """Let robots obey a store that is a copy, or was restored once more, as an operator does.

    Its term has the number of the one that they have obeyed, and is another one.
    """
    wait_until(
        lambda: all(each["outranked"] for each in robots.machines().values()),
        "no robot obeys a copy of the store by itself",
    )
    robots.dorafleet("takeover", "--all")
    robots.wait_connected()


def change_store(robots: EnrolledFleet, *statements: str) -> None:
    """Run SQL on the store of a coordinator that is stopped, as an intruder may."""
    for statement in statements:
        robots.server.exec("python3", "-c", CHANGE, STORE, statement)
    # The coordinator's own user has to be able to read it.
    robots.server.sh(f"chown dorafleet: {STORE}*; systemctl start {UNIT}")


def number_of_records(robots: EnrolledFleet) -> int:
    return int(robots.dorafleet("audit", "verify").split()[1])


def test_the_audit_has_every_change_and_who_made_it(robots: EnrolledFleet) -> None:
    before = number_of_records(robots)
    with robots.running(Flow("audited")):
        pass
    added = robots.dorafleet("audit", "--after", str(before))
    print(added)
    assert "audited" in added
    assert "dataflow.start" in added
    assert "dataflow.stop" in added


def test_a_changed_record_of_the_audit_is_found(damaged: EnrolledFleet) -> None:
    change_store(
        damaged,
        "UPDATE entries SET value = CAST(replace(CAST(value AS TEXT), 'dataflow.start', "
        "'dataflow.stxrt') AS BLOB) WHERE key = (SELECT min(key) FROM entries WHERE key LIKE "
        "'audit/%' AND CAST(value AS TEXT) LIKE '%dataflow.start%')",
    )
    verified = damaged.attempt("audit", "verify")
    print(verified.stderr)
    assert verified.returncode == 1
    assert re.search(r"record \d+", verified.stderr)


def test_an_audit_whose_end_was_cut_off_is_seen_by_every_robot(damaged: EnrolledFleet) -> None:
    # Robots are told the head when they connect. The chain that is left is whole.
    change_store(
        damaged,
        "WITH rest AS (SELECT key, value FROM entries WHERE key LIKE 'audit/%' "
        "ORDER BY key DESC LIMIT 1 OFFSET 2) "
        "UPDATE entries SET value = (SELECT CAST(CAST(substr(key, 7) AS INTEGER) || ':' || "
        "substr(CAST(value AS TEXT), 1, 64) AS BLOB) FROM rest) WHERE key = 'audit-head'",
        "DELETE FROM entries WHERE key IN (SELECT key FROM entries WHERE key LIKE 'audit/%' "
        "ORDER BY key DESC LIMIT 2)",
    )
    assert damaged.attempt("audit", "verify").returncode == 0
    for machine in damaged.robots:
        found = damaged.wait_for_machine(machine, lambda each: each["audit"], f"{machine} knows")
        print(machine, found["problems"])
        assert any("there was a record" in problem for problem in found["problems"])


def test_a_robot_that_is_newer_than_a_restored_backup_runs_on_until_the_operator_decides(
    robots: EnrolledFleet,
) -> None:
    """`adopt` makes what the robots run the store's state, `resume` makes them follow the store."""
    old = Flow("old", policy="backpressure")
    with robots.running(old):
        refused = robots.attempt("backup", "/root/fleet.backup")
        assert refused.returncode == 1
        assert f"`dorafleet backup {BACKUP}`" in refused.stderr
        robots.dorafleet("backup", BACKUP)
        newer = Flow("newer", policy="backpressure")
        robots.start(newer)
        before = robots.pids(old), robots.pids(newer)

        refused = robots.attempt("restore", BACKUP, "--state", FOLDER)
        assert refused.returncode == 1
        assert "runuser -u dorafleet" in refused.stderr

        def restore(*, again: bool) -> None:
            robots.server.sh(
                f"systemctl stop {UNIT}; rm -f {STORE}*; runuser -u dorafleet -- "
                f"dorafleet restore {BACKUP} --state {FOLDER}; systemctl start {UNIT}"
            )
            if again:
                take_over(robots)
            robots.wait_connected()
            asked = robots.attempt("status")
            assert asked.returncode == 1
            assert "question: the store was restored from a backup" in asked.stderr
            assert "restore: the store was restored" in robots.attempt("doctor").stdout
            for machine in ("arm1", "arm2"):
                found = robots.wait_for_machine(
                    machine, lambda each: each["state"] == "conflict-paused", "it is paused"
                )
                print(machine, found["problems"])
                assert "newer" in found["conflicts"]
            robots.flows_on(old)
            robots.flows_on(newer)
            assert (robots.pids(old), robots.pids(newer)) == before

        restore(again=False)
        robots.dorafleet("audit", "acknowledge")
        for machine in ("arm1", "arm2"):
            robots.dorafleet("adopt", machine)
            robots.wait_for_machine(machine, lambda each: each["well"], "the conflict is over")
        assert "newer" in robots.dora("list")
        assert (robots.pids(old), robots.pids(newer)) == before

        restore(again=True)
        robots.dorafleet("audit", "acknowledge")
        for machine in ("arm1", "arm2"):
            robots.dorafleet("resume", machine)
        wait_until(lambda: not any(robots.pids(newer).values()), "the store knows no `newer`")
        for machine in ("arm1", "arm2"):
            robots.wait_for_machine(machine, lambda each: each["well"], "the conflict is over")
        robots.flows_on(old)
        assert robots.pids(old) == before[0]
        assert [robots.report(old).missing, robots.report(old).restarts] == [0, 0]
