"""Connections to a real SSH server: logins, host keys, and timeouts."""

import asyncio
import logging

import asyncssh
import pytest

from dorafleet.inventory.model import Machine
from dorafleet.ssh.connection import connect
from dorafleet.ssh.errors import Code, SshError
from dorafleet.ssh.fanout import run_on_each
from tests.fleet.fakerobot import FakeRobot
from tests.harness.waiting import until


def machine(fleet, name, **more):
    return Machine(name, "127.0.0.1", more.pop("user", "root"), fleet.ports[name], **more)


async def refused(target, **options):
    """Return the error of a connection that must fail."""
    with pytest.raises(SshError) as caught:
        async with connect(target, **options):
            pass
    return caught.value


async def test_a_command_gives_its_output_errors_and_exit_code(fleet):
    robot = fleet.add("arm", FakeRobot(answers={"try": (3, "out\n", "first\nlast\n")}))
    async with connect(machine(fleet, "arm")) as connection:
        done = await connection.run(["try", "two words", "$HOME"])
    assert (done.code, done.stdout, done.last_line) == (3, "out\n", "last")
    assert robot.commands == [["try", "two words", "$HOME"]]


async def test_an_unknown_host_key_is_refused_with_the_command_that_adds_it(fleet):
    fleet.add("arm", FakeRobot(), known=False)
    error = await refused(machine(fleet, "arm"))
    assert error.code is Code.HOST_KEY_UNKNOWN
    assert fleet.host_key.get_fingerprint() in error.message
    assert f"ssh-keyscan -p {fleet.ports['arm']} 127.0.0.1 >> " in str(error)
    assert "--accept-new" in str(error)
    assert not fleet.operator.known_hosts.exists()


async def test_accept_new_adds_the_key_to_known_hosts(fleet):
    fleet.add("arm", FakeRobot(), known=False)
    fleet.operator.known_hosts.write_text("# no end of line")
    async with connect(machine(fleet, "arm"), accept_new=True) as connection:
        await connection.check(["true"])
    async with connect(machine(fleet, "arm")) as connection:
        await connection.check(["true"])
    assert fleet.operator.known_hosts.read_text().startswith("# no end of line\n[127.0.0.1]:")


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
async def test_a_changed_host_key_is_refused_even_with_accept_new(fleet, kind):
    fleet.add("arm", FakeRobot(), known=False)
    fleet.trust("arm", asyncssh.generate_private_key(kind))
    before = fleet.operator.known_hosts.read_text()
    error = await refused(machine(fleet, "arm"), accept_new=True)
    assert error.code is Code.HOST_KEY_CHANGED
    assert f"ssh-keygen -R '[127.0.0.1]:{fleet.ports['arm']}'" in str(error)
    assert fleet.operator.known_hosts.read_text() == before


async def test_a_robot_with_several_keys_is_accepted_for_the_known_one(fleet):
    rsa = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    fleet.add("arm", FakeRobot(), rsa, known=False)
    fleet.trust("arm", rsa)
    async with connect(machine(fleet, "arm")) as connection:
        await connection.check(["true"])


async def test_the_configuration_cannot_disable_the_check_of_host_keys(fleet):
    fleet.add("arm", FakeRobot(), known=False)
    (fleet.operator.home / ".ssh/config").write_text(
        "Host *\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n"
    )
    assert (await refused(machine(fleet, "arm"))).code is Code.HOST_KEY_UNKNOWN


async def test_host_user_port_and_files_come_from_the_configuration_of_ssh(fleet, keys):
    robot = fleet.add("arm", FakeRobot(), known=False)
    home = fleet.operator.home
    (home / ".ssh/id_ed25519").rename(home / "key")
    known = fleet.host_key.export_public_key("openssh").decode()
    (home / "hosts").write_text(f"[127.0.0.1]:{fleet.ports['arm']} {known}")
    (home / ".ssh/config").write_text(
        f"Host arm-in-the-hall\n  HostName 127.0.0.1\n  Port {fleet.ports['arm']}\n  User pilot\n"
        f"  IdentityFile {home}/key\n  UserKnownHostsFile {home}/hosts\n"
    )
    async with connect(Machine("arm", "arm-in-the-hall")) as connection:
        await connection.check(["true"])
    assert robot.commands == [["true"]]


async def test_a_machine_behind_a_jump_host_is_reached_through_it(fleet):
    gate, robot = fleet.add("gate", FakeRobot()), fleet.add("arm", FakeRobot())
    (fleet.operator.home / ".ssh/config").write_text(
        f"Host arm\n  HostName 127.0.0.1\n  Port {fleet.ports['arm']}\n"
        f"  ProxyJump root@127.0.0.1:{fleet.ports['gate']}\n"
    )
    async with connect(Machine("arm", "arm", "root")) as connection:
        await connection.check(["true"])
    assert (gate.connections, gate.commands) == (1, [])
    assert robot.commands == [["true"]]


async def test_a_refused_user_gets_a_hint(fleet):
    fleet.add("arm", FakeRobot())
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    stranger.write_private_key(fleet.operator.home / ".ssh/id_ed25519")
    error = await refused(machine(fleet, "arm"))
    assert error.code is Code.DENIED
    assert "ssh-copy-id" in str(error)


async def test_a_configuration_or_a_key_that_cannot_be_read_is_named(fleet):
    fleet.add("arm", FakeRobot())
    config = fleet.operator.home / ".ssh/config"
    config.write_text("Host *\n  Port many\n")
    error = await refused(Machine("arm", "127.0.0.1"))
    assert error.code is Code.CONFIG
    assert "Port" in str(error)
    (fleet.operator.home / "locked").write_bytes(
        fleet.operator.key.export_private_key("pkcs8-pem", passphrase="x" * 12)
    )
    config.write_text(f"Host *\n  IdentityFile {fleet.operator.home}/locked\n")
    error = await refused(machine(fleet, "arm"))
    assert "ssh-add" in str(error)


async def test_a_silent_server_is_a_timeout(fleet):
    left = asyncio.Event()

    async def silent(reader, writer):
        while await reader.read(4096):
            pass
        writer.close()
        left.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    error = await refused(Machine("arm", "127.0.0.1", "root", port), timeout=0.3)
    assert error.code is Code.UNREACHABLE
    assert "does not answer within 0.3 s" in str(error)
    async with asyncio.timeout(60):
        await left.wait()
    server.close()


async def test_a_hanging_command_is_a_timeout_and_the_connection_stays(fleet):
    fleet.add("arm", FakeRobot(hanging={"sleep"}))
    async with connect(machine(fleet, "arm")) as connection:
        with pytest.raises(SshError, match=r"`sleep 9` is not done after 0.2 s"):
            await connection.run(["sleep", "9"], timeout=0.2)
        assert await connection.check(["id", "-u"]) == "0\n"


async def test_a_command_that_prints_too_much_is_closed_and_the_connection_stays(fleet):
    fleet.add("arm", FakeRobot(answers={"yes": (0, "y\n" * 200_000, "")}))
    async with connect(machine(fleet, "arm")) as connection:
        with pytest.raises(SshError) as caught:
            await connection.run(["yes"], limit=64 << 10)
        assert caught.value.code is Code.TOO_MUCH_OUTPUT
        assert await connection.check(["id", "-u"]) == "0\n"


async def test_a_lost_connection_is_reported_with_the_running_command(fleet):
    fleet.add("arm", FakeRobot(dropping={"id"}))
    async with connect(machine(fleet, "arm")) as connection:
        with pytest.raises(SshError) as caught:
            await connection.run(["id", "-u"])
    assert caught.value.code is Code.LOST
    assert "during `id -u`" in str(caught.value)


async def test_a_file_arrives_complete_and_its_progress_is_reported(fleet, tmp_path):
    robot = fleet.add("arm", FakeRobot())
    data = bytes(range(256)) * 12_000
    (tmp_path / "big").write_bytes(data)
    counts = []
    async with connect(machine(fleet, "arm")) as connection:
        await connection.upload(tmp_path / "big", "/tmp/a b", counts.append)
    assert robot.files == {"/tmp/a b": data}
    assert counts == sorted(counts)
    assert len(counts) > 2
    assert counts[-1] == len(data)


async def test_a_file_that_does_not_fit_or_arrives_damaged_is_an_error(fleet, tmp_path):
    (tmp_path / "big").write_bytes(bytes(4 << 20))
    robot = fleet.add("arm", FakeRobot(disk_full=True))
    async with connect(machine(fleet, "arm")) as connection:
        with pytest.raises(SshError, match="No space left on device"):
            await connection.upload(tmp_path / "big", "/tmp/big")
        robot.disk_full = False
        robot.answers["sha256sum"] = (0, "0123  /tmp/big\n", "")
        with pytest.raises(SshError, match="arrived damaged"):
            await connection.upload(tmp_path / "big", "/tmp/big")


async def test_a_failure_on_one_machine_does_not_affect_the_others(fleet):
    fleet.add("one", FakeRobot())
    fleet.add_unreachable("two")
    fleet.add("three", FakeRobot(dropping={"id"}))
    fleet.add("four", FakeRobot())

    async def work(target):
        async with connect(target) as connection:
            return await connection.check(["id", "-u"])

    outcomes = await run_on_each([machine(fleet, name) for name in fleet.ports], work, parallel=4)
    assert [outcome.machine.id for outcome in outcomes] == ["one", "two", "three", "four"]
    assert [outcome.result for outcome in outcomes] == ["0\n", None, None, "0\n"]
    codes = [outcome.error and outcome.error.code for outcome in outcomes]
    assert codes == [None, Code.UNREACHABLE, Code.LOST, None]


async def test_the_number_of_machines_at_once_is_limited(fleet):
    for number in range(6):
        fleet.add(f"arm{number}", FakeRobot())

    async def work(target):
        async with connect(target) as connection:
            return await connection.check(["id", "-u"])

    await run_on_each([machine(fleet, name) for name in fleet.ports], work, parallel=2)
    assert fleet.servers.counts["most"] == 2


async def test_cancelling_closes_every_connection(fleet):
    robots = [fleet.add(f"arm{n}", FakeRobot(hanging={"sleep"})) for n in range(3)]

    async def work(target):
        async with connect(target) as connection:
            await connection.run(["sleep", "9"])

    task = asyncio.create_task(
        run_on_each([machine(fleet, name) for name in fleet.ports], work, parallel=3)
    )
    await until(lambda: all(robot.commands for robot in robots))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not fleet.servers.counts["now"])


async def test_private_keys_are_not_logged(fleet, caplog):
    caplog.set_level(logging.DEBUG)
    fleet.add("arm", FakeRobot())
    async with connect(machine(fleet, "arm")) as connection:
        await connection.check(["true"])
    secret = fleet.operator.key.export_private_key("openssh").decode().splitlines()[2]
    assert secret not in caplog.text
