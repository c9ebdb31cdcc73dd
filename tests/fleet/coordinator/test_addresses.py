"""Commands with the addresses of several coordinators: the one that leads is used, and named."""

import ast
import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

import click
import pytest

import dorafleet.cli
from dorad.cli.main import run_command as run_dora
from dorad.commandline.groups import LazyGroup
from dorad.control import connecting
from dorad.control.asyncclient import AsyncClient
from dorad.control.client import Client
from dorad.control.errors import ControlError
from dorad.control.target import Tcp
from dorafleet.cli.main import cli, run_command
from tests.fleet.coordinator.running import coordinator
from tests.harness.ports import free_port

FIRST, SECOND, LEADER = "127.0.0.3", "127.0.0.2", "127.0.0.1"
"""Hosts of the fleet's coordinators; the last one leads."""

HANGS_S = 0.2
"""Seconds after which FIRST counts as hanging."""

FILE = "{folder}/cluster.yml"

COMMANDS = {
    "robots": ["robots"],
    "alerts": ["alerts"],
    "status": ["status"],
    "up": ["up", FILE],
    "labels": ["labels", "arm1", "place=hall"],
    "robot add": ["robot", "add", "arm9", "10.0.0.9", "--no-enrol"],
    "robot remove": ["robot", "remove", "arm9"],
    "adopt": ["adopt", "arm1"],
    "resume": ["resume", "arm1"],
    "takeover": ["takeover", "arm1"],
    "doctor": ["doctor"],
    "restart": ["restart", FILE, "pick"],
    "uninstall": ["uninstall", FILE, "--only", "arm1"],
    "explain": ["explain", "pick"],
    "deploy": ["deploy", "pick-1"],
    "history": ["history"],
    "plan": ["plan", "pick-1"],
    "release stored": ["release", "stored"],
    "release upload": ["release", "upload", "pick-1"],
    "rollout start": ["rollout", "start", "pick-1"],
    "rollout status": ["rollout", "status"],
    "rollout follow": ["rollout", "follow"],
    "rollout pause": ["rollout", "pause"],
    "rollout resume": ["rollout", "resume"],
    "rollout promote": ["rollout", "promote"],
    "rollout abort": ["rollout", "abort"],
    "rollout undo": ["rollout", "undo"],
    "rollout history": ["rollout", "history"],
    "drift": ["drift"],
    "audit": ["audit", "verify"],
    "top": ["top", "--by", "robot"],
    "incidents list": ["incidents", "list"],
    "incidents fetch": ["incidents", "fetch", "1", "--output", "{folder}/1.mcap"],
    "incidents open": ["incidents", "open", "1"],
    "incidents remove": ["incidents", "remove", "1"],
    "backup": ["backup", "{folder}/fleet.backup"],
    "enrol": ["enrol", FILE, "arm1", "--token"],
    "provision": ["provision", FILE, "arm1"],
    "revoke": ["revoke", "--operator", "ann"],
    "access": ["access"],
    "operator add": ["operator", "add", "ann", "--role", "viewer", "--output", "{folder}/ann.pem"],
    "token create": ["token", "create", "panel", "--role", "viewer", "--days", "3"],
    "router": ["router"],
    "authority hand-over": ["authority", "hand-over"],
    "authority status": ["authority", "status"],
    "authority finish": ["authority", "finish"],
    "authority cancel": ["authority", "cancel"],
    "secret set": ["secret", "set", "api-key", "--for", "arm1", "--file", FILE],
    "secret list": ["secret", "list"],
    "secret remove": ["secret", "remove", "api-key"],
    "down": ["down", "--keep-dataflows"],
}
"""Each command that talks to a coordinator, with arguments; `down` is the last one."""

OTHERS = {
    # Its screens are tested in tests/console; it has the same client.
    "console",
    "check",
    "completion",
    "exec",
    "install",
    "push",
    "release build",
    "release diff",
    "release list",
    "release push",
    "release show",
    "release trust",
    "release verify",
    "restore",
    "serve",
    "upgrade",
}
"""Commands that talk to no coordinator."""


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Return the names of all commands below a group."""
    if not isinstance(command, (click.Group, LazyGroup)):
        yield " ".join(path)
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None
        yield from leaves(below, (*path, name))


def closes(sock: socket.socket) -> None:
    """Accept connections and close them, as a coordinator does that ends."""
    while True:
        try:
            sock.accept()[0].close()
        except OSError:
            return


@contextmanager
def first(kind: str, port: int) -> Iterator[None]:
    """Be the first coordinator: `dead`, or one that `hangs`, or one that `closes` connections."""
    if kind == "dead":
        yield
        return
    with socket.socket() as sock:
        sock.bind((FIRST, port))
        sock.listen(100)
        thread = threading.Thread(target=closes, args=(sock,), daemon=True)
        if kind == "closes":
            thread.start()
        yield
        sock.shutdown(socket.SHUT_RDWR)
        if kind == "closes":
            thread.join(10)


@pytest.fixture
def addresses(monkeypatch, tmp_path):
    """An operator whose settings name three coordinators; a hanging one is found out soon."""
    monkeypatch.setenv("DORA_COORDINATOR_ADDR", f"{FIRST},{SECOND},{LEADER}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("DORA_SOCKET", raising=False)
    connect = connecting._open_tcp

    def impatient(target: Tcp) -> connecting.Opened | None:
        opened = connect(target)
        if opened is None or target.host != FIRST:
            return opened
        return opened._replace(timing=opened.timing._replace(connect=HANGS_S))

    monkeypatch.setattr(connecting, "_open_tcp", impatient)


def test_each_command_is_listed_here():
    assert {*COMMANDS, *OTHERS} == set(leaves(cli))
    assert not COMMANDS.keys() & OTHERS


def test_commands_connect_in_one_place():
    """So that a new command follows the leader by itself, and says which one that is."""
    folder = Path(dorafleet.cli.__file__).parent
    places = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id in ("Client", "AsyncClient"):
                places.add(path.name)
    # down waits until the one that it has ended is gone; completions print nothing; what follows
    # a rollout, uploads or fetches connects again, after it has named the leader.
    others = {
        *("down.py", "complete.py", "rolloutfollow.py", "releaseupload.py", "incidentfetch.py"),
    }
    assert places == {"coordinator.py", *others}


@pytest.mark.long
@pytest.mark.parametrize("kind", ["dead", "hangs", "closes"])
def test_every_command_follows_the_leader_and_names_it(
    addresses, monkeypatch, tmp_path, capsys, kind
):
    folder = tmp_path / "dorafleet"
    with coordinator(folder, "--listen", LEADER, "--tls") as leader, first(kind, leader.port):
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(leader.port))
        for name, words in COMMANDS.items():
            run_command([word.format(folder=folder) for word in words])
            err = capsys.readouterr().err
            note = f"note: the coordinator at {LEADER} port {leader.port} leads: "
            assert note in err, (name, err)
            line = next(line for line in err.splitlines() if line.startswith("note: the coord"))
            assert f"nothing listens at {SECOND} port {leader.port}" in line, name
            assert f"{FIRST} port {leader.port}" in line, name
            # What follows is the coordinator's own answer.
            assert "answers" not in err.replace(line, ""), (name, err)
        assert leader.process.wait(60) == 0  # `down` has reached it


@pytest.mark.parametrize("words", [["list"], ["status"], ["node", "list"], ["top", "--once"]])
def test_dora_follows_the_leader_and_names_it(addresses, monkeypatch, tmp_path, capsys, words):
    folder = tmp_path / "dorafleet"
    with coordinator(folder, "--listen", LEADER, "--tls") as leader, first("hangs", leader.port):
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(leader.port))
        run_dora(words)
        assert f"{LEADER} port {leader.port} leads: " in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"up"}))
def test_without_a_coordinator_every_command_names_all_addresses(
    addresses, monkeypatch, tmp_path, capsys, name
):
    (tmp_path / "cluster.yml").write_text(
        "coordinator: {addr: 10.0.0.1}\nmachines: [{id: arm1, host: 10.0.0.11}]\n"
    )
    port = free_port()
    monkeypatch.setenv("DORA_COORDINATOR_PORT", str(port))
    words = [word.format(folder=tmp_path) for word in COMMANDS[name]]
    if name in ("plan", "rollout start"):
        words += ["--store", str(tmp_path)]
    assert run_command(words) == 1
    out, err = capsys.readouterr()
    for host in (FIRST, SECOND, LEADER):
        assert f"{host} port {port}" in out + err, (name, out, err)


def test_of_several_that_do_not_answer_each_has_its_reason(
    addresses, monkeypatch, tmp_path, capsys
):
    port = free_port()
    (tmp_path / "dorafleet").mkdir()
    (tmp_path / "dorafleet/token").touch(mode=0o600)
    (tmp_path / "dorafleet/token").write_text("0" * 64)
    monkeypatch.setenv("DORA_COORDINATOR_PORT", str(port))
    with first("hangs", port):
        assert run_command(["status"]) == 1
    err = capsys.readouterr().err
    assert "none of the coordinators answers: " in err
    assert f"{FIRST} port {port} has not answered for 0.2 s" in err
    assert f"nothing listens at {SECOND} port {port}" in err
    assert f"nothing listens at {LEADER} port {port}" in err


def test_a_refusal_of_the_leader_is_told_instead_of_the_silence_of_others(
    addresses, monkeypatch, tmp_path, capsys
):
    folder = tmp_path / "dorafleet"
    with coordinator(folder, "--listen", LEADER, "--tls") as leader:
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(leader.port))
        (folder / "token").write_text("0" * 64)
        assert run_command(["status"]) == 1
        err = capsys.readouterr().err
        assert "token" in err, err
        assert "none of the coordinators" not in err


async def test_a_client_for_asyncio_does_the_same(addresses, monkeypatch, tmp_path):
    folder = tmp_path / "dorafleet"
    with coordinator(folder, "--listen", LEADER, "--tls") as leader, first("hangs", leader.port):
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(leader.port))
        async with AsyncClient() as client:
            assert client.server.address == f"{LEADER} port {leader.port}"
        leader.end()
        with pytest.raises(ControlError, match=f"{FIRST} port .* has not answered") as caught:
            await AsyncClient().open()
        assert caught.value.code == "deadline"


def test_a_daemon_that_hangs_is_an_error_whatever_comes_after_it(tmp_path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        with pytest.raises(ControlError, match="has not answered") as caught:
            Client((connecting.UnixSocket(tmp_path / "s"), Tcp(LEADER, free_port())))
        assert caught.value.code == "deadline"


@pytest.fixture
def black_hole(addresses, monkeypatch):
    """Let connecting to FIRST and SECOND hang until the event that is yielded is set."""
    connect, answered = connecting._open_tcp, threading.Event()
    late: list[socket.socket] = []

    def hole(target: Tcp) -> connecting.Opened | None:
        if target.host == LEADER:
            return connect(target)
        assert answered.wait(120)
        sock, other = socket.socketpair()
        other.close()
        late.append(sock)
        server = connecting.faults.coordinator_at(target)
        return connecting.Opened(sock, server, connecting.FAR, "x", {}, None)

    monkeypatch.setattr(connecting, "_open_tcp", hole)
    before = set(threading.enumerate())
    yield answered
    answered.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert len(late) >= 2
    assert {sock.fileno() for sock in late} == {-1}, "a connection that came too late stays open"


@pytest.mark.parametrize("words", [["robots"], ["status"], ["rollout", "status"]])
def test_addresses_that_never_answer_hold_up_no_command(
    black_hole, monkeypatch, tmp_path, capsys, words
):
    folder = tmp_path / "dorafleet"
    with coordinator(folder, "--listen", LEADER, "--tls") as leader:
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(leader.port))
        run_command(words)
        err = capsys.readouterr().err
        assert f"{LEADER} port {leader.port} leads: " in err
        assert f"{FIRST} port {leader.port} has not answered yet" in err
    assert not black_hole.is_set()


async def test_addresses_that_never_answer_hold_up_no_client(black_hole, monkeypatch, tmp_path):
    folder = tmp_path / "dorafleet"
    with coordinator(folder, "--listen", LEADER, "--tls") as leader:
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(leader.port))
        async with AsyncClient() as client:
            assert client.server.address == f"{LEADER} port {leader.port}"
    assert not black_hole.is_set()


@pytest.fixture
def silent(addresses, monkeypatch):
    """Give a coordinator at FIRST that accepts and stays silent a minute to answer."""
    monkeypatch.setattr("tests.fleet.coordinator.test_addresses.HANGS_S", 60.0)


@contextmanager
def accepts(port: int) -> Iterator[None]:
    """Accept connections at FIRST and stay silent; each must be closed by its client in the end."""
    accepted: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                accepted.append(sock.accept()[0])

    with socket.socket() as sock:
        sock.bind((FIRST, port))
        sock.listen(100)
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield
        sock.shutdown(socket.SHUT_RDWR)
        thread.join(60)
    assert accepted
    for each in accepted:
        each.close()


@pytest.mark.parametrize("words", [["robots"], ["status"], ["labels", "arm1", "place=hall"]])
@pytest.mark.parametrize("tls", [True, False])
def test_an_address_that_accepts_and_stays_silent_holds_up_no_command(
    silent, monkeypatch, tmp_path, capsys, words, tls
):
    folder, more = tmp_path / "dorafleet", ["--tls"] if tls else []
    with (
        coordinator(folder, "--listen", LEADER, *more) as leader,
        accepts(leader.port),
    ):
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(leader.port))
        run_command(words)
        err = capsys.readouterr().err
        assert f"{LEADER} port {leader.port} leads: " in err
        assert f"{FIRST} port {leader.port} has not answered yet" in err


async def test_an_address_that_accepts_and_stays_silent_holds_up_no_client(
    silent, monkeypatch, tmp_path
):
    folder = tmp_path / "dorafleet"
    with coordinator(folder, "--listen", LEADER, "--tls") as leader:
        monkeypatch.setenv("DORA_COORDINATOR_PORT", str(leader.port))
        ended = asyncio.Event()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(1 << 16):
                pass
            writer.close()
            ended.set()

        async with await asyncio.start_server(listen, FIRST, leader.port):
            async with AsyncClient() as client:
                assert client.server.address == f"{LEADER} port {leader.port}"
                # The greeting of the other one is over: nothing is left behind.
                async with asyncio.timeout(60):
                    await ended.wait()
                greetings = [each for each in asyncio.all_tasks() if "greet" in repr(each)]
                assert not greetings


@pytest.mark.parametrize("answers", [True, False])
def test_only_one_server_is_used_and_late_ones_are_closed(answers):
    """A command goes to the server whose hello was answered first, and to no other."""
    late, discarded = threading.Event(), SimpleQueue()

    def attempt(target):
        if target.host == FIRST:
            assert late.wait(120)
            if not answers:
                raise ControlError("deadline", "it hangs")
        return target.host

    opening = connecting.Opening([Tcp(FIRST, 1), Tcp(SECOND, 1)], attempt, discarded.put)
    assert next(opening) == (Tcp(SECOND, 1), SECOND)
    opening.close()
    assert next(opening, None) is None
    late.set()
    for thread in threading.enumerate():
        if thread.name.startswith("connect to"):
            thread.join(60)
    assert discarded.qsize() == answers
