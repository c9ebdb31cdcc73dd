"""A shared process holder: processes, exits and descriptors that outlive a daemon."""

import asyncio
import os
import resource
import signal
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from dorad.launch.holder.client import HolderClient
from dorad.launch.model import Exit, LaunchError
from dorad.procinfo import is_alive, start_time
from tests.harness.waiting import wait_until
from tests.launch.holders import Recorder

from .conftest import Family
from .holders import Daemon, Place, read_all, start


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path)
    yield place
    await place.clear()


def by_tag(holder: HolderClient) -> dict[str, Exit | None]:
    return {kept.tag: kept.exit for kept in holder.kept}


async def test_processes_keep_running_when_the_daemon_is_killed(
    place: Place, family: Family
) -> None:
    with place.daemon() as daemon:
        sleeper = daemon.spawn("u/sleeper/0", family.command("/bin/sleep", "100"))
    holder = await place.attach()
    (kept,) = holder.kept
    assert (kept.tag, kept.pid, kept.started) == (
        "u/sleeper/0",
        sleeper["pid"],
        sleeper["started"],
    )
    assert kept.started == start_time(kept.pid)
    assert kept.exit is None
    kept.process.signal(signal.SIGTERM)
    assert await kept.process.wait() == Exit(signal=signal.SIGTERM)


async def test_output_printed_without_a_daemon_is_not_lost(place: Place, family: Family) -> None:
    hold = family.folder / "hold"
    talker = f"while [ ! -e {hold} ]; do sleep 0.01; done; echo after; echo error >&2"
    with place.daemon() as daemon:
        daemon.spawn("u/talker/0", family.shell(f"echo before; {talker}"))
    hold.touch()
    wait_until(lambda: not family.alive())
    holder = await place.attach()
    out, err = holder.take("u/talker")["u/talker/0"]
    assert read_all(out) == "before\nafter\n"
    assert read_all(err) == "error\n"
    assert holder.entries == {}
    assert by_tag(holder) == {"u/talker/0": Exit(code=0)}


async def test_exits_without_a_daemon_are_kept_until_they_are_forgotten(
    place: Place, family: Family
) -> None:
    gate = family.folder / "gate"
    wait = f"while [ ! -e {gate} ]; do sleep 0.01; done;"
    with place.daemon() as daemon:
        daemon.spawn("u/a/0", family.shell(f"{wait} exit 7"))
        daemon.spawn("u/b/3", family.shell(f"{wait} kill -SEGV $$"))
        daemon.spawn("u/c/0", family.command("/bin/sleep", "100"))
    gate.touch()
    wait_until(lambda: len(family.alive()) == 1)
    expected = {"u/a/0": Exit(code=7), "u/b/3": Exit(signal=signal.SIGSEGV), "u/c/0": None}
    for _ in range(2):
        holder = await place.attach()
        assert by_tag(holder) == expected
        await holder.detach()
    holder = await place.attach()
    (ended,) = (kept for kept in holder.kept if kept.tag == "u/a/0")
    assert await ended.process.wait() == Exit(code=7)
    ended.process.signal(signal.SIGKILL)
    holder.forget(ended.pid)
    await holder.detach()
    del expected["u/a/0"]
    assert by_tag(await place.attach()) == expected


async def test_an_exit_that_the_daemon_did_not_record_is_reported_again(
    place: Place, family: Family
) -> None:
    holder = await place.attach()
    process = await start(holder, family.shell("exit 3"), "u/n/0")
    await process.wait()
    await holder.detach()
    holder = await place.attach()
    assert by_tag(holder) == {"u/n/0": Exit(code=3)}
    holder.forget(process.pid)
    holder.forget(process.pid)
    await holder.detach()
    assert by_tag(await place.attach()) == {}


async def test_a_process_that_still_runs_is_forgotten_when_it_ends(
    place: Place, family: Family
) -> None:
    holder = await place.attach()
    process = await start(holder, family.command("/bin/sleep", "100"), "u/n/0")
    holder.forget(process.pid)
    await holder.detach()
    holder = await place.attach()
    assert by_tag(holder) == {"u/n/0": None}
    holder.kept[0].process.signal(signal.SIGKILL)
    assert await holder.kept[0].process.wait() == Exit(signal=signal.SIGKILL)
    await holder.detach()
    assert by_tag(await place.attach()) == {}


async def test_a_process_requested_right_before_a_kill_is_found_by_its_tag(
    place: Place, family: Family
) -> None:
    with place.daemon() as daemon:
        os.kill(pid := next(iter(place.pids)), signal.SIGSTOP)
        daemon.spawn("u/n/5", family.command("/bin/sleep", "100"), "request")
    os.kill(pid, signal.SIGCONT)
    holder = await place.attach()
    assert by_tag(holder) == {"u/n/5": None}
    assert set(holder.entries) == {"u/n/5"}


async def test_many_descriptors_are_kept_and_returned(place: Place) -> None:
    with place.daemon() as daemon:
        daemon.ask("pipes", 300)
    holder = await place.attach()
    found = holder.take("pipe/")
    assert {name: read_all(fd) for name, (fd,) in found.items()} == {
        f"pipe/{number}": str(number) for number in range(300)
    }


async def test_a_large_store_is_sent_before_the_holder_reads(place: Place) -> None:
    with place.daemon() as daemon:
        os.kill(pid := next(iter(place.pids)), signal.SIGSTOP)
        daemon.ask("pipes", 300)
    os.kill(pid, signal.SIGCONT)
    holder = await place.attach()
    # All of them if the system lets sockets have the room; else all but the youngest.
    numbers = sorted(int(name.split("/")[1]) for name in holder.entries)
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 100


async def test_descriptors_that_the_holder_does_not_accept_at_once_are_queued(place: Place) -> None:
    holder = await place.attach()
    os.kill(holder.pid, signal.SIGSTOP)
    for number in range(10_000):
        holder.drop(f"{number}/" + "x" * 2000)
    read, write = os.pipe()
    holder.store("last", [read])
    os.close(read)
    os.kill(holder.pid, signal.SIGCONT)
    await holder.detach()
    os.write(write, b"kept")
    os.close(write)
    again = await place.attach()
    assert read_all(*again.take("last")["last"]) == "kept"


async def test_a_stored_connection_survives_the_daemon(place: Place) -> None:
    with place.daemon() as daemon:
        daemon.ask("socket")
    holder = await place.attach()
    (ours,), (theirs,) = holder.take("ours")["ours"], holder.take("theirs")["theirs"]
    with socket.socket(fileno=ours) as our_end, socket.socket(fileno=theirs) as their_end:
        assert our_end.recv(100) == b"sent before"
        our_end.send(b"sent after")
        assert their_end.recv(100) == b"sent after"


async def test_storing_a_name_again_replaces_it_and_a_drop_closes_it(place: Place) -> None:
    holder = await place.attach()
    for name in ("a", "a", "b"):
        read, write = os.pipe()
        holder.store(name, [read, write])
        os.close(read)
        os.close(write)
    holder.drop("b")
    holder.drop("never-stored")
    await holder.detach()
    holder = await place.attach()
    assert {name: len(fds) for name, fds in holder.entries.items()} == {"a": 2}
    holder.drop("a")
    await holder.detach()
    assert (await place.attach()).entries == {}


async def test_long_names_are_kept(place: Place, family: Family) -> None:
    long = "u/" + "n" * 200
    holder = await place.attach()
    await start(holder, family.command("/bin/sleep", "100"), long)
    holder.store(long, [0])
    await holder.detach()
    holder = await place.attach()
    assert (set(holder.entries), set(by_tag(holder))) == ({long}, {long})
    with pytest.raises(ValueError, match="not a valid name"):
        holder.store("with space", [0])


async def test_a_second_daemon_is_refused(place: Place) -> None:
    with place.daemon() as daemon:
        with pytest.raises(LaunchError, match=rf"another dorad \(pid {daemon.process.pid}\)"):
            await place.attach()
        with Daemon() as third:
            answer = third.ask("attach", str(place.path))
            assert answer["error"] == f"another dorad (pid {daemon.process.pid}) is running"
        assert daemon.ask("pipes", 1) == {}


async def test_of_daemons_that_start_at_once_exactly_one_gets_the_holder(
    place: Place,
) -> None:
    daemons = [Daemon() for _ in range(4)]
    try:
        for daemon in daemons:
            daemon.send("attach", str(place.path))
        answers = [daemon.answer() for daemon in daemons]
        place.pids |= {answer["holder"] for answer in answers if "holder" in answer}
        assert len(place.pids) == 1
        assert sum("another dorad" in answer.get("error", "") for answer in answers) == 3
    finally:
        for daemon in daemons:
            daemon.kill()


async def test_ending_leaves_nothing(place: Place, family: Family) -> None:
    holder = await place.attach()
    processes = [
        await start(holder, family.role(role)) for role in ("deaf", "stopped", "double_fork")
    ]
    wait_until(family.ready("double_fork").exists)
    await holder.end()
    await holder.end()
    assert not family.alive()
    assert not is_alive(holder.pid)
    assert not place.path.exists()
    assert {process.exit for process in processes} == {Exit(signal=signal.SIGKILL)}
    assert not holder.died


async def test_a_hanging_holder_is_ended_too(
    place: Place, family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dorad.launch.holder.client._END_SECONDS", 0.1)
    holder = await place.attach()
    process = await start(holder, family.command("/bin/sleep", "100"))
    os.kill(holder.pid, signal.SIGSTOP)
    await holder.end()
    assert process.exit == Exit(signal=signal.SIGKILL)
    assert not family.alive()


async def test_a_killed_holder_is_detected_and_its_nodes_end(place: Place, family: Family) -> None:
    recorder = Recorder()
    holder = await place.attach(recorder)
    process = await start(holder, family.role("deaf"))
    wait_until(family.ready("deaf").exists)
    os.kill(holder.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        assert await process.wait() == Exit(signal=signal.SIGKILL)
        await recorder.died.wait()
    assert holder.died
    assert not family.alive()
    with pytest.raises(LaunchError, match="exited"):
        await start(holder, family.shell("exit 0"))
    holder.drop("nothing")
    await holder.end()
    assert (await place.attach()).pid != holder.pid


async def test_signals_other_than_sigkill_do_not_end_it(place: Place, family: Family) -> None:
    holder = await place.attach()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(holder.pid, number)
    assert (await (await start(holder, family.shell("exit 0"))).wait()).ok


async def test_it_has_its_own_group_session_and_streams(place: Place, family: Family) -> None:
    with place.daemon(start_new_session=True) as daemon:
        daemon.spawn("u/n/0", family.command("/bin/sleep", "100"))
        pid = next(iter(place.pids))
        assert os.getsid(pid) not in (os.getsid(daemon.process.pid), os.getsid(0))
        assert psutil.Process(pid).ppid() != daemon.process.pid
        proc = Path(f"/proc/{pid}")
        assert str((proc / "cwd").readlink()) == "/"
        streams = {str((proc / f"fd/{number}").readlink()) for number in (0, 1, 2)}
        assert streams == {"/dev/null"}
        os.killpg(daemon.process.pid, signal.SIGKILL)
    assert by_tag(await place.attach()) == {"u/n/0": None}


async def test_only_its_user_can_connect_to_it(place: Place) -> None:
    await place.attach()
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o600


async def test_malformed_packets_do_not_end_it(place: Place, family: Family) -> None:
    with place.daemon() as daemon:
        daemon.spawn("u/n/0", family.command("/bin/sleep", "100"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(str(place.path))
        for packet in (b"x", b"spawn", b"spawn 1 =", b"signal x y", b"signal 1 9999", b"store = x"):
            stranger.send(packet)
        socket.send_fds(stranger, [b"store =a 2"], [0])
        socket.send_fds(stranger, [b"spawn 2 ="], [0, 1, 2])
    holder = await place.attach()
    assert by_tag(holder) == {"u/n/0": None}
    assert set(holder.entries) == {"u/n/0"}


async def test_a_holder_of_another_version_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = await place.attach()
    await holder.detach()
    monkeypatch.setattr("dorad.launch.holder.wire.VERSION", 999)
    with pytest.raises(LaunchError, match=f"kill -9 {holder.pid}"):
        await place.attach()


async def test_an_impossible_path_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="cannot start the process holder"):
        await Place(tmp_path / "no-folder").attach()
    with pytest.raises(LaunchError, match="AF_UNIX path too long"):
        await Place(tmp_path / ("x" * 120)).attach()


async def test_a_stale_socket_is_replaced(place: Place) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(place.path))
    await place.attach()


async def test_nodes_keep_their_limit_of_open_files(place: Place, family: Family) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
    try:
        holder = await place.attach()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == limits[1]
        process = await start(holder, family.command("/bin/sleep", "100"))
        assert psutil.Process(process.pid).rlimit(psutil.RLIMIT_NOFILE)[0] == 1024
        assert psutil.Process(holder.pid).rlimit(psutil.RLIMIT_NOFILE)[0] == limits[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


async def test_it_reports_what_it_cannot_keep_and_continues(place: Place, family: Family) -> None:
    recorder = Recorder()
    holder = await place.attach(recorder)
    process = await start(holder, family.command("/bin/sleep", "100"))
    room = psutil.Process(holder.pid).num_fds() + 5
    psutil.Process(holder.pid).rlimit(psutil.RLIMIT_NOFILE, (room, room))
    for number in range(4):
        holder.store(f"some/{number}", [0, 1, 2])
    with pytest.raises(LaunchError, match="Too many open files"):
        await start(holder, family.shell("exit 0"))
    assert recorder.problems
    assert "no descriptor left to keep some/3" in recorder.problems[-1]
    assert process.exit is None
    for number in range(4):
        holder.drop(f"some/{number}")
    assert (await (await start(holder, family.shell("exit 0"))).wait()).ok


async def test_a_start_that_was_cancelled_is_ended_and_forgotten(
    place: Place, family: Family
) -> None:
    holder = await place.attach()
    task = asyncio.create_task(start(holder, family.command("/bin/sleep", "100"), "u/n/0"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    last = await start(holder, family.command("/bin/sleep", "100"), "u/last/0")
    wait_until(lambda: len(family.alive()) == 1)
    last.signal(signal.SIGKILL)
    await last.wait()  # everything before it is done
    await holder.detach()
    assert set(by_tag(await place.attach())) == {"u/last/0"}
