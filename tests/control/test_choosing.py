"""Which server a command talks to."""

from pathlib import Path

import pytest

from dorad.control.choosing import Asked, LocalServers, choose, chosen, chosen_daemons
from dorad.control.client import Client
from dorad.control.connecting import open_socket
from dorad.control.errors import ControlError, NoDaemonError
from dorad.control.server import bind_socket
from dorad.control.settings import Settings
from dorad.control.target import Tcp, TlsFiles, UnixSocket, is_here
from dorad.dataflow.errors import DataflowError
from dorad.shm import rendezvous
from tests.harness.ports import free_port

USER = Path("/run/user/7/dora")
MACHINE = Path("/run/dorad")
PLACES = LocalServers(USER, MACHINE, Path("/home/state"))
TOKEN = Path("/home/state/token")
TLS = TlsFiles(Path("/etc/dora/ca.pem"))
OWN_TLS = TlsFiles(Path("/home/state/authority.pem"))
REMOTE = Settings("10.0.0.1", 6014, None, TLS)

USUAL = (UnixSocket(USER / "control.sock"), UnixSocket(MACHINE / "control.sock"))


@pytest.mark.parametrize(
    ("asked", "settings", "targets"),
    [
        (Asked(), None, USUAL),
        (Asked(), Settings(), USUAL),
        (Asked(), REMOTE, (Tcp("10.0.0.1", 6014, None, TLS),)),
        (Asked(socket=Path("/s")), REMOTE, (UnixSocket(Path("/s")),)),
        (
            Asked(port=7001, socket=Path("/s")),
            REMOTE,
            (UnixSocket(USER / "7001/control.sock"), Tcp("127.0.0.1", 7001, TOKEN)),
        ),
        (Asked(port=6013), None, (*USUAL, Tcp("127.0.0.1", 6013, TOKEN))),
        (Asked("127.0.0.1"), None, (Tcp("127.0.0.1", 6013, TOKEN),)),
        (Asked("::1", 7001, Path("/s")), None, (Tcp("::1", 7001, TOKEN),)),
        # The settings say how to reach their coordinator, wherever else it is asked for.
        (Asked("10.0.0.2"), REMOTE, (Tcp("10.0.0.2", 6013, None, TLS),)),
        (Asked("10.0.0.1"), REMOTE, (Tcp("10.0.0.1", 6014, None, TLS),)),
        (Asked("10.0.0.1", 7), REMOTE, (Tcp("10.0.0.1", 7, None, TLS),)),
        # They say nothing about this machine, unless they are about it.
        (Asked("127.0.0.1"), REMOTE, (Tcp("127.0.0.1", 6013, TOKEN),)),
        (
            Asked("localhost"),
            Settings("127.0.0.1", 9, Path("/t")),
            (Tcp("localhost", 6013, Path("/t")),),
        ),
        (Asked("127.0.0.1"), Settings(port=9, tls=TLS), (Tcp("127.0.0.1", 9, None, TLS),)),
        (Asked("10.0.0.1"), None, (Tcp("10.0.0.1", 6013),)),
        # A fleet may have several, of which one leads.
        (Asked("10.0.0.1, 10.0.0.2"), None, (Tcp("10.0.0.1", 6013), Tcp("10.0.0.2", 6013))),
        (
            Asked(),
            Settings("10.0.0.1,10.0.0.2", 6014, None, TLS),
            (Tcp("10.0.0.1", 6014, None, TLS), Tcp("10.0.0.2", 6014, None, TLS)),
        ),
    ],
)
def test_the_rule(
    asked: Asked, settings: Settings | None, targets: tuple[UnixSocket | Tcp, ...]
) -> None:
    assert choose(asked, settings, PLACES) == targets


def test_a_coordinator_of_this_machine_that_encrypts_is_checked_with_its_own_authority() -> None:
    (found,) = choose(Asked("127.0.0.1"), None, PLACES._replace(encrypts=True))
    assert found == Tcp("127.0.0.1", 6013, TOKEN, OWN_TLS)


@pytest.mark.parametrize(
    ("asked", "settings", "target"),
    [
        (Asked("10.0.0.7"), None, Tcp("10.0.0.7", 6013, TOKEN, OWN_TLS)),
        (Asked("10.0.0.8"), None, Tcp("10.0.0.8", 6013)),
        (Asked(), Settings("10.0.0.7"), Tcp("10.0.0.7", 6013, TOKEN, OWN_TLS)),
        (Asked(), Settings("10.0.0.7", tls=TLS), Tcp("10.0.0.7", 6013, None, TLS)),
        (Asked("10.0.0.7"), REMOTE, Tcp("10.0.0.7", 6013, TOKEN, OWN_TLS)),
    ],
)
def test_any_address_of_this_machine_is_that_of_its_own_coordinator(
    asked: Asked, settings: Settings | None, target: Tcp
) -> None:
    here = PLACES._replace(encrypts=True, own=("10.0.0.7",))
    assert choose(asked, settings, here) == (target,)


def test_an_address_of_this_machine_is_known_and_names_are_not_looked_up() -> None:
    assert [is_here(each) for each in ("127.0.0.1", "192.0.2.77", "localhost", "x y")] == [
        True,
        False,
        False,
        False,
    ]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without settings and without variables."""
    for name in ("DORA_SOCKET", "DORA_COORDINATOR_ADDR", "DORA_COORDINATOR_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name in ("config", "state", "runtime"):
        (tmp_path / name / "dora").mkdir(parents=True, mode=0o700)
        monkeypatch.setenv(
            f"XDG_{name.upper()}_{'DIR' if name == 'runtime' else 'HOME'}", str(tmp_path / name)
        )
    monkeypatch.setattr("dorad.control.settings.OF_MACHINE", tmp_path / "etc" / "config.yml")
    return tmp_path


def test_the_variable_is_the_only_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("DORA_SOCKET", str(tmp_path / "s"))
    assert chosen() == (UnixSocket(tmp_path / "s"),)
    with pytest.raises(NoDaemonError, match="no dorad is running") as caught:
        Client()
    assert caught.value.code == "unavailable"
    assert str(tmp_path / "s") in caught.value.message
    assert caught.value.hint == "start one with `dora up`"
    (tmp_path / "dorafleet").mkdir()
    (tmp_path / "dorafleet/token").touch()
    with pytest.raises(NoDaemonError) as caught:
        Client()
    assert "this machine's coordinator is at `--coordinator-addr 127.0.0.1`" in caught.value.hint


def test_the_users_daemon_is_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DORA_SOCKET", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    of_machine = rendezvous.SYSTEM_DIR / "control.sock"
    assert chosen() == (UnixSocket(tmp_path / "dora" / "control.sock"), UnixSocket(of_machine))
    sock, _ = bind_socket(tmp_path / "dora" / "control.sock", None)
    with sock:
        sock.listen()
        opened = open_socket(chosen()[0])
        assert opened is not None
        opened.sock.close()
        assert opened.server.path == tmp_path / "dora" / "control.sock"


def test_a_port_without_a_server_names_both_kinds(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("DORA_COORDINATOR_PORT", "7001")
    with pytest.raises(NoDaemonError) as caught:
        Client()
    assert caught.value.message.startswith("no dorad is running at ")
    end = "/7001/control.sock, and no coordinator at 127.0.0.1 port 7001"
    assert caught.value.message.endswith(end)
    assert caught.value.hint == "start one with `dora up --coordinator-port 7001`"


def test_a_coordinator_that_does_not_run_is_no_missing_daemon(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """So `dora logs` does not show files of this machine instead of its logs."""
    monkeypatch.setenv("DORA_COORDINATOR_ADDR", "127.0.0.1")
    monkeypatch.setenv("DORA_COORDINATOR_PORT", "1")
    with pytest.raises(ControlError, match="no coordinator is running") as caught:
        Client()
    assert not isinstance(caught.value, NoDaemonError)


def test_what_concerns_this_machine_never_goes_to_a_coordinator(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    (home / "config/dora/config.yml").write_text("coordinator: {addr: 127.0.0.1}\n")
    of_machine = UnixSocket(rendezvous.SYSTEM_DIR / "control.sock")
    assert chosen_daemons()[1:] == (of_machine,)
    monkeypatch.setenv("DORA_COORDINATOR_PORT", "7001")
    (own,) = chosen_daemons()
    assert own.path.parts[-2:] == ("7001", "control.sock")
    monkeypatch.setenv("DORA_COORDINATOR_ADDR", "10.0.0.1")
    assert chosen_daemons()[1:] == (of_machine,)
    monkeypatch.delenv("DORA_COORDINATOR_PORT")
    monkeypatch.setenv("DORA_SOCKET", "/s")
    assert chosen_daemons() == (UnixSocket(Path("/s")),)


def test_another_machine_needs_tls(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("DORA_COORDINATOR_ADDR", "192.0.2.1")
    with pytest.raises(ControlError, match="needs TLS, and no `ca` is set") as caught:
        Client()
    assert "config.yml" in str(caught.value.hint)


def test_a_coordinator_at_an_address_of_this_machine_may_only_not_run_yet(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    # Stands for all addresses of this machine, also where it has none beyond loopback.
    monkeypatch.setenv("DORA_COORDINATOR_ADDR", "0.0.0.0")
    monkeypatch.setenv("DORA_COORDINATOR_PORT", str(free_port()))
    with pytest.raises(ControlError, match=r"no coordinator is running at 0\.0\.0\.0") as caught:
        Client()
    assert "`dorafleet up cluster.yml`" in str(caught.value.hint)


def test_settings_are_read_with_paths_beside_their_file(home: Path) -> None:
    folder = home / "config" / "dora"
    (folder / "config.yml").write_text(
        "coordinator: {addr: 10.0.0.1, port: 6014, token: t, ca: ca.pem, certificate: /c.pem}\n"
    )
    tls = TlsFiles(folder / "ca.pem", Path("/c.pem"))
    assert chosen() == (Tcp("10.0.0.1", 6014, folder / "t", tls),)


def test_the_machines_settings_are_for_users_without_their_own(home: Path) -> None:
    (home / "etc").mkdir()
    (home / "etc/config.yml").write_text("coordinator: {addr: 127.0.0.1, port: 6014}\n")
    assert chosen() == (Tcp("127.0.0.1", 6014, Path("/var/lib/dorafleet/token")),)
    (home / "config/dora/config.yml").write_text("coordinator: {addr: 127.0.0.1, port: 6015}\n")
    assert chosen() == (Tcp("127.0.0.1", 6015, Path("/var/lib/dorafleet/token")),)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("coordinator: 7\n", "1:14: coordinator: must be a mapping"),
        ("coordinator: {adr: x}\n", "1:15: coordinator.adr: unknown key"),
        ("coordinator:\n  port: 0\n", "2:9: coordinator.port: must be"),
        ("coordinator: {addr: x, key: k}\n", "1:29: coordinator.key: needs `ca`"),
        ("coordinator: {addr: x, ca: c, key: k}\n", "1:36: coordinator.key: needs `certificate`"),
        ("colour: red\n", "1:1: colour: unknown key"),
        ("[]\n", "1:1: settings are a mapping"),
        ("", "the file is empty"),
    ],
)
def test_wrong_settings_are_reported_with_their_place(home: Path, text: str, problem: str) -> None:
    path = home / "config" / "dora" / "config.yml"
    path.write_text(text)
    with pytest.raises(DataflowError) as caught:
        chosen()
    lines = [str(each) for each in caught.value.problems]
    assert any(f"{path}:" in line and problem in line for line in lines), lines
