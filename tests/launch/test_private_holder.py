"""A private process holder: what its processes get, and what it reports about them."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from msgspec.structs import replace

from dorad.launch.holder.client import HolderClient
from dorad.launch.model import Command, Exit, LaunchError
from dorad.launch.spawner import Process
from tests.harness.waiting import wait_until

from .conftest import Family


@pytest_asyncio.fixture
async def holder() -> AsyncIterator[HolderClient]:
    async with HolderClient.start() as holder:
        yield holder


async def start(holder: HolderClient, command: Command) -> Process:
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        return await holder.spawn(command, sink, sink)
    finally:
        os.close(sink)


def open_files() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


async def output(holder: HolderClient, command: Command) -> str:
    """Return stdout and stderr of a command."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as pipe:
        try:
            process = await holder.spawn(command, write, write)
        finally:
            os.close(write)
        await process.wait()
        return pipe.read().decode(errors="surrogateescape")


async def test_reports_the_exit_code(holder: HolderClient, family: Family) -> None:
    process = await start(holder, family.shell("exit 7"))
    assert await process.wait() == Exit(code=7)
    assert process.exit == Exit(code=7)


async def test_reports_the_signal_that_killed_it(holder: HolderClient, family: Family) -> None:
    process = await start(holder, family.shell("kill -SEGV $$"))
    assert await process.wait() == Exit(signal=signal.SIGSEGV)


async def test_the_process_leads_its_own_group_outside_of_our_session(
    holder: HolderClient, family: Family
) -> None:
    process = await start(holder, family.command("/bin/sleep", "100"))
    assert os.getpgid(process.pid) == process.pid
    assert os.getsid(process.pid) == holder.pid != os.getsid(0)
    assert psutil.Process(process.pid).ppid() == holder.pid


async def test_it_has_an_empty_stdin_and_no_descriptor_of_ours(
    holder: HolderClient, family: Family
) -> None:
    code = "import os; print(os.readlink('/proc/self/fd/0'), os.listdir('/proc/self/fd'))"
    text = await output(holder, family.command(sys.executable, "-S", "-c", code))
    # 3 is the listing itself.
    assert text == "/dev/null ['0', '1', '2', '3']\n"


async def test_its_signal_handlers_are_the_defaults(holder: HolderClient, family: Family) -> None:
    text = await output(holder, family.shell("grep -E 'Sig(Blk|Ign)' /proc/self/status"))
    assert [int(line.split()[1], 16) for line in text.splitlines()] == [0, 0]


async def test_it_gets_the_environment_and_folder_and_nothing_else(
    holder: HolderClient, tmp_path: Path
) -> None:
    text = await output(holder, Command(("/usr/bin/env",), tmp_path, {"A": "1", "B": "x=y\nz"}))
    assert text == "A=1\nB=x=y\nz\n"
    assert await output(holder, Command(("/bin/pwd",), tmp_path)) == f"{tmp_path}\n"


async def test_bytes_that_are_not_utf8_arrive_unchanged(
    holder: HolderClient, family: Family
) -> None:
    command = family.command("/bin/echo", os.fsdecode(b"\xff\xfe"))
    assert os.fsencode(await output(holder, command)) == b"\xff\xfe\n"


async def test_an_environment_larger_than_a_socket_packet_arrives(
    holder: HolderClient, family: Family
) -> None:
    large = {f"V{n}": "x" * 50_000 for n in range(10)}
    command = replace(family.shell("echo $V0$V9 | wc -c"), env={**family.env, **large})
    assert int(await output(holder, command)) == 100_001


async def test_many_start_at_once(holder: HolderClient, family: Family) -> None:
    commands = [family.shell(f"exit {n}") for n in range(30)]
    processes = await asyncio.gather(*(start(holder, command) for command in commands))
    exits = await asyncio.gather(*(process.wait() for process in processes))
    assert [how.code for how in exits] == list(range(30))


async def test_a_signal_reaches_the_whole_group(holder: HolderClient, family: Family) -> None:
    process = await start(holder, family.shell("sleep 100 & sleep 100 & wait"))
    wait_until(lambda: len(family.alive()) == 3)
    process.signal(signal.SIGTERM)
    assert await process.wait() == Exit(signal=signal.SIGTERM)
    wait_until(lambda: not family.alive())


async def test_the_rest_of_a_group_ends_with_its_leader(
    holder: HolderClient, family: Family
) -> None:
    process = await start(holder, family.shell("trap '' TERM; sleep 100 & exit 0"))
    assert await process.wait() == Exit(code=0)
    wait_until(lambda: not family.alive())


async def test_a_daemon_that_left_the_group_lives_until_the_run_ends(family: Family) -> None:
    async with HolderClient.start() as holder:
        process = await start(holder, family.role("orphan"))
        assert (await process.wait()).ok
        wait_until(family.ready("orphan").exists)
        assert len(family.alive()) == 1
    assert not family.alive()


async def test_signals_after_the_end_do_nothing(holder: HolderClient, family: Family) -> None:
    process = await start(holder, family.shell("exit 0"))
    await process.wait()
    process.signal(signal.SIGKILL)


async def test_it_runs_on_the_cores_asked_for(holder: HolderClient, family: Family) -> None:
    core = max(os.sched_getaffinity(0))
    pinned = await start(holder, replace(family.command("/bin/sleep", "9"), cpu_affinity=(core,)))
    free = await start(holder, family.command("/bin/sleep", "9"))
    assert os.sched_getaffinity(pinned.pid) == {core}
    assert os.sched_getaffinity(free.pid) == os.sched_getaffinity(0)
    assert pinned.skipped_cores == ()


@pytest.mark.parametrize("missing", [5000, 10**30])
async def test_cores_that_do_not_exist_are_skipped_and_named(
    holder: HolderClient, family: Family, missing: int
) -> None:
    sleep = family.command("/bin/sleep", "9")
    some = await start(holder, replace(sleep, cpu_affinity=(0, missing)))
    none = await start(holder, replace(sleep, cpu_affinity=(missing,)))
    assert some.skipped_cores == none.skipped_cores == (missing,)
    assert os.sched_getaffinity(some.pid) == {0}
    assert os.sched_getaffinity(none.pid) == os.sched_getaffinity(0)


async def test_a_missing_program_is_one_line(holder: HolderClient, family: Family) -> None:
    with pytest.raises(LaunchError, match=r"^cannot start /no/such: No such file or directory$"):
        await start(holder, family.command("/no/such"))


async def test_a_missing_folder_is_named(holder: HolderClient) -> None:
    with pytest.raises(LaunchError, match="its working directory /no/folder: No such file"):
        await start(holder, Command(("/bin/true",), Path("/no/folder")))


async def test_a_missing_interpreter_is_named(holder: HolderClient, family: Family) -> None:
    script = family.folder / "script"
    script.write_text("#!/no/python\n")
    script.chmod(0o755)
    with pytest.raises(LaunchError, match=r"interpreter it names does not exist .*#!/no/python"):
        await start(holder, family.command(str(script)))


async def test_a_file_without_execute_permission_is_an_error(
    holder: HolderClient, family: Family
) -> None:
    script = family.folder / "script"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(LaunchError, match="chmod"):
        await start(holder, family.command(str(script)))


async def test_a_file_that_is_not_a_program_is_an_error(
    holder: HolderClient, family: Family
) -> None:
    script = family.folder / "script"
    script.write_text("hello\n")
    script.chmod(0o755)
    with pytest.raises(LaunchError, match="neither a program"):
        await start(holder, family.command(str(script)))


async def test_too_long_arguments_are_an_error(holder: HolderClient, family: Family) -> None:
    with pytest.raises(LaunchError, match="too long"):
        await start(holder, family.command("/bin/true", "x" * 300_000))


async def test_a_nul_byte_is_refused(holder: HolderClient, family: Family) -> None:
    with pytest.raises(LaunchError, match="NUL"):
        await start(holder, family.command("/bin/true", "a\0b"))


async def test_nothing_starts_after_closing(family: Family) -> None:
    async with HolderClient.start() as holder:
        pass
    with pytest.raises(LaunchError, match="exited"):
        await start(holder, family.shell("exit 0"))


async def test_a_cancelled_start_leaves_no_process(holder: HolderClient, family: Family) -> None:
    task = asyncio.create_task(start(holder, family.command("/bin/sleep", "100")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The holder answers in order: the cancelled start has been handled by now.
    await start(holder, family.shell("exit 0"))
    wait_until(lambda: not family.alive())


async def test_closing_ends_every_process_and_reports_the_exits(family: Family) -> None:
    async with HolderClient.start() as holder:
        process = await start(holder, family.role("deaf"))
        wait_until(family.ready("deaf").exists)
    assert process.exit == Exit(signal=signal.SIGKILL)
    assert not family.alive()


async def test_closing_leaves_no_zombie_and_no_descriptor(family: Family) -> None:
    before = open_files()
    children = psutil.Process().children()
    async with HolderClient.start() as holder:
        for _ in range(3):
            await start(holder, family.role("orphan"))
            await start(holder, family.command("/bin/sleep", "100"))
            with pytest.raises(LaunchError):
                await start(holder, family.command("/no/such"))
    assert psutil.Process().children() == children
    assert open_files() == before


async def test_closing_twice_and_closing_what_was_never_entered_work() -> None:
    holder = HolderClient.start()
    await holder.end()
    await holder.end()
    assert not psutil.pid_exists(holder.pid)
    assert not holder.died


async def test_closing_is_complete_even_when_it_is_cancelled(family: Family) -> None:
    holder = HolderClient.start()
    await holder.__aenter__()
    process = await start(holder, family.role("double_fork"))
    wait_until(family.ready("double_fork").exists)
    os.kill(holder.pid, signal.SIGSTOP)
    closing = asyncio.create_task(holder.end())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert not family.alive()
    assert process.exit == Exit(signal=signal.SIGKILL)
    await asyncio.to_thread(lambda: asyncio.run(holder.end()))


async def test_sigterm_does_not_end_the_holder(holder: HolderClient, family: Family) -> None:
    process = await start(holder, family.command("/bin/sleep", "100"))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(holder.pid, number)
    assert (await (await start(holder, family.shell("exit 0"))).wait()).ok
    assert process.exit is None


async def test_two_holders_are_independent(holder: HolderClient, family: Family) -> None:
    async with HolderClient.start() as other:
        mine = await start(holder, family.command("/bin/sleep", "100"))
        theirs = await start(other, family.command("/bin/sleep", "100"))
        os.kill(other.pid, signal.SIGKILL)
        assert await theirs.wait() == Exit(signal=signal.SIGKILL)
    assert (await (await start(holder, family.shell("exit 0"))).wait()).ok
    assert mine.exit is None
