"""Leases of nodes, of commands and for some time, with a real dorad."""

import json
import signal
import subprocess

import psutil
import pytest

from dorad.control.errors import ControlError
from dorad.control.peer import Peer
from dorad.daemon.leases import MAX_RESERVED, MAX_USER_LEASES, Leases
from tests.harness.daemon import daemon
from tests.harness.flows import BUSY, write_flow
from tests.harness.waiting import wait_until

GREEDY = """
    from contextlib import ExitStack
    from dora import Node

    node = Node()
    for reason in ("", "x" * 201, 7):
        try:
            node.busy(reason).__enter__()
        except ValueError as error:
            print("refused:", error, flush=True)
    with ExitStack() as stack:
        for number in range(16):
            stack.enter_context(node.busy(f"lease {number}"))
        try:
            stack.enter_context(node.busy("one more"))
        except RuntimeError as error:
            print("refused:", error, flush=True)
        for event in node:
            pass
"""


@pytest.fixture(scope="module")
def dorad():
    with daemon() as found:
        yield found


@pytest.fixture
def restarted():
    """A daemon that the test restarts."""
    with daemon() as found:
        yield found


def listed(dorad):
    return [json.loads(line) for line in dorad.dora_ok("busy", "list", "-f", "json").splitlines()]


def reasons(dorad):
    with dorad.client() as client:
        return [lease.reason for lease in client.leases()]


def test_a_node_is_busy_inside_its_block_also_while_dorad_is_restarted(restarted, tmp_path):
    work = tmp_path / "work"
    nodes = [
        {
            "id": "arm",
            "path": "arm.py",
            "inputs": {"tick": "dora/timer/millis/10"},
            "env": {"WORK": str(work)},
        }
    ]
    path = write_flow(tmp_path, nodes, arm=BUSY)
    restarted.dora_ok("start", path, "--name", "pick", "--detach")
    work.touch()
    wait_until(lambda: reasons(restarted) == ["holds a cup"])
    (lease,) = listed(restarted)
    assert lease["owner"].startswith("pick/arm (pid ")
    restarted.kill()
    restarted.start()
    wait_until(lambda: listed(restarted) == [lease])
    work.unlink()
    wait_until(lambda: not reasons(restarted))
    work.touch()
    wait_until(lambda: reasons(restarted) == ["holds a cup"])
    pid = int(listed(restarted)[0]["owner"].split()[-1].rstrip(")"))
    subprocess.run(["kill", "-9", str(pid)], check=True)
    wait_until(lambda: not reasons(restarted))
    restarted.dora("stop", "pick", "--force")


def test_a_node_has_a_bounded_number_of_leases_with_bounded_reasons(dorad, tmp_path):
    path = write_flow(
        tmp_path, [{"id": "arm", "path": "arm.py", "inputs": {"t": "dora/timer/secs/1"}}],
        arm=GREEDY,
    )  # fmt: skip
    dorad.dora_ok("start", path, "--name", "greedy", "--detach")
    wait_until(lambda: len(reasons(dorad)) == 16)
    wait_until(lambda: "the maximum" in dorad.dora("logs", "greedy").stdout)
    assert dorad.dora("logs", "greedy").stdout.count("refused:") == 4
    dorad.dora("stop", "greedy", "--force")
    assert reasons(dorad) == []


def test_a_command_is_busy_until_it_ends_and_its_code_is_returned(dorad, tmp_path):
    seen = tmp_path / "seen"
    done = dorad.dora(
        "busy", "docking", "--", "sh", "-c", f"dora busy list -f json > {seen}; exit 5"
    )
    assert done.returncode == 5, done.stderr
    assert json.loads(seen.read_text())["reason"] == "docking"
    assert reasons(dorad) == []


def test_a_holder_that_is_killed_is_no_longer_busy(restarted):
    holder = subprocess.Popen([restarted.bin / "dora", "busy", "maintenance"], env=restarted.env)
    try:
        wait_until(lambda: reasons(restarted) == ["maintenance"])
        descriptors = psutil.Process(holder.pid).num_fds()
        restarted.kill()
        restarted.start()
        assert reasons(restarted) == ["maintenance"]
        wait_until(lambda: [each["expires"] for each in listed(restarted)] == [None])
        assert psutil.Process(holder.pid).num_fds() == descriptors
        holder.send_signal(signal.SIGKILL)
        wait_until(lambda: not reasons(restarted))
    finally:
        holder.kill()
        holder.wait()


def test_a_lease_with_a_time_to_live_needs_no_process(restarted):
    lease = restarted.dora_ok("busy", "--ttl", "1h", "inspection").strip()
    restarted.kill()
    restarted.start()
    (found,) = listed(restarted)
    assert (found["id"], found["reason"]) == (lease, "inspection")
    assert found["expires"] > found["since"] + 3500
    assert "inspection" in restarted.dora_ok("busy", "list")
    restarted.dora_ok("busy", "end", lease)
    assert reasons(restarted) == []
    again = restarted.dora("busy", "end", lease)
    assert (again.returncode, again.stderr) == (1, f"error: there is no lease '{lease}'\n")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--ttl", "1h", "x", "--", "true"], 2, "either --ttl or a command"),
        (["x", "--"], 2, "no command after"),
        (["x", "true"], 2, "unexpected extra argument"),
        (["--ttl", "900h", "x"], 1, "at most 86400 s"),
        (["x" * 201, "--", "true"], 1, "length <= 200"),
        (["x", "--", "/no/such/program"], 1, "cannot run /no/such/program"),
    ],
)
def test_wrong_words_are_refused(dorad, words, code, text):
    done = dorad.dora("busy", *words)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert reasons(dorad) == []


def test_a_client_cannot_hold_one_with_a_time_or_take_one_without(dorad):
    from dorad.control.messages import LEASE_HOLD, LEASE_TAKE, LeaseTake

    with dorad.client() as client:
        with pytest.raises(ControlError, match="`ttl` is missing"):
            client.call(LEASE_TAKE, LeaseTake(reason="x"))
        with client.stream(LEASE_HOLD, LeaseTake(reason="x", ttl=5)) as stream:
            with pytest.raises(ControlError, match=r"`lease\.take`"):
                next(iter(stream))
        assert client.status().notices == []


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def peer(uid=1000, pid=7):
    return Peer(pid, uid, uid)


def test_one_user_cannot_take_all_leases_or_end_those_of_another(tmp_path):
    leases = Leases(tmp_path / "leases.json", print)
    own = [leases.take(peer(), f"r{number}", 60) for number in range(MAX_USER_LEASES)]
    with pytest.raises(ControlError, match="at most"):
        leases.take(peer(), "one more", 60)
    other = leases.take(peer(uid=1001), "other", 60)
    with pytest.raises(ControlError, match="belongs to"):
        leases.end(other.id, peer())
    leases.end(other.id, peer(uid=0))
    leases.end(own[0].id, peer(pid=8))
    held = leases.take(peer(), "held", None)
    with pytest.raises(ControlError, match="holds this lease"):
        leases.end(held.id, peer(uid=0))


def reserve(dorad, key, seconds):
    with dorad.client() as client:
        return client.reserve_leases(key, seconds)


def test_while_a_switch_is_reserved_commands_are_refused_and_nodes_wait(restarted, tmp_path):
    work = tmp_path / "work"
    tick = {"tick": "dora/timer/millis/10"}
    nodes = [{"id": "arm", "path": "arm.py", "inputs": tick, "env": {"WORK": str(work)}}]
    path = write_flow(tmp_path, nodes, arm=BUSY)
    restarted.kill()
    restarted.start("--verbose")
    restarted.dora_ok("start", path, "--name", "pick", "--detach")
    assert reserve(restarted, "pick, order 2", 60).left > 50
    work.touch()
    with restarted.client() as client, pytest.raises(ControlError, match="about to switch"):
        client.take_lease("moves", 10)
    log = "node arm waits to be busy: holds a cup"
    wait_until(lambda: log in restarted.log)
    assert reasons(restarted) == []
    # A second request extends nothing.
    assert reserve(restarted, "pick, order 2", 60).left < 60
    reserve(restarted, "pick, order 2", 0)
    wait_until(lambda: reasons(restarted) == ["holds a cup"])
    busy = reserve(restarted, "pick, order 3", 60)
    assert (busy.left, [each.reason for each in busy.leases]) == (0, ["holds a cup"])
    work.unlink()
    restarted.dora("stop", "pick", "--force")


def test_a_reservation_that_is_over_does_not_begin_again_and_their_number_is_bounded(tmp_path):
    clock = Clock()
    leases = Leases(tmp_path / "leases.json", print, clock)
    assert leases.reserve("one", 20) == 20
    clock.now += 5
    assert (leases.reserve("one", 20), leases.reserve("two", 30)) == (15, 30)
    clock.now += 16
    assert (leases.reserve("one", 20), leases.reserved) == (0, 14)
    with pytest.raises(ControlError, match="no lease begins for 14 s"):
        leases.take(peer(), "moves", 10)
    clock.now += 15
    assert leases.take(peer(), "moves", 10).reason == "moves"
    for number in range(3 * MAX_RESERVED):
        leases.reserve(f"key {number}", 1)
    assert len(leases._reserved) <= MAX_RESERVED + 1


def test_leases_end_when_their_time_is_over_also_after_a_restart(tmp_path):
    clock = Clock()
    path = tmp_path / "leases.json"
    leases = Leases(path, print, clock)
    leases.take(peer(), "short", 10)
    leases.take(peer(), "held", None)
    again = Leases(path, print, clock)
    assert [each.reason for each in again.all()] == ["short", "held"]
    clock.now += 6
    # Its client has not come back.
    assert [each.reason for each in again.all()] == ["short"]
    clock.now += 6
    assert again.all() == []


@pytest.mark.parametrize("content", [b"[{", b'[{"id": "\xff"}]', b'[{"x": ' + b"[" * 10_000])
def test_a_file_of_leases_that_is_damaged_is_reported(tmp_path, content):
    path = tmp_path / "leases.json"
    path.write_bytes(content)
    warnings = []
    assert Leases(path, warnings.append).all() == []
    assert "cannot be read" in warnings[0]
