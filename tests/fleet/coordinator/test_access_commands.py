"""`dorafleet operator`, `token`, `access` and `revoke` against a running coordinator with TLS."""

import json
import stat

import pytest

from dorad.control.client import Client
from dorad.control.errors import ControlError
from dorad.control.messages import Nothing
from dorad.control.target import Tcp, TlsFiles
from dorafleet.cli.main import run_command
from dorafleet.coordinator.accessmessages import ACCESS_LIST
from dorafleet.coordinator.messages import AUDIT_READ, ROBOT_LIST, AuditRead
from tests.fleet.coordinator.running import coordinator


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with coordinator(tmp_path_factory.mktemp("commands") / "state", "--tls") as found:
        yield found


def run(running, *words):
    return run_command([*words, "--state", str(running.folder), "--port", str(running.port)])


def client(running, bundle=None, token=None):
    files = TlsFiles(bundle or running.folder / "authority.pem", bundle)
    return Client(Tcp("127.0.0.1", running.port, token, files))


def test_one_file_is_all_that_an_operator_needs(running, tmp_path, capsys):
    path = tmp_path / "ann.pem"
    words = ("operator", "add", "ann", "--role", "viewer", "--output", str(path))
    assert run(running, *words) == 0
    assert capsys.readouterr().out.startswith(f"{path}: viewer ann, until 20")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with client(running, path) as ann:
        assert len(ann.call(ROBOT_LIST, Nothing()).robots) == 2
        with pytest.raises(ControlError, match="needs the role admin"):
            ann.call(ACCESS_LIST, Nothing())
    assert run(running, *words) == 1
    assert "ann.pem cannot be written: File exists" in capsys.readouterr().err
    assert run(running, "revoke", "--operator", "ann", "--json") == 0
    done = {"kind": "operator", "name": "ann", "certificates": 1, "connections": 0}
    assert json.loads(capsys.readouterr().out) == done
    with pytest.raises(ControlError, match="certificate of operator `ann` was revoked"):
        client(running, path)


def test_a_refused_operator_leaves_no_file(running, tmp_path, capsys):
    path = tmp_path / "bob.pem"
    more = ("--role", "viewer", "--output", str(path), "--days", "5000")
    assert run(running, "operator", "add", "bob", *more) == 1
    assert "`days` must be from 1 to 3650" in capsys.readouterr().err
    assert not path.exists()


def test_a_bundle_can_be_printed(running, capsys):
    assert run(running, "operator", "add", "cat", "--role", "admin", "--output", "-") == 0
    printed = capsys.readouterr().out
    assert printed.count("-----BEGIN CERTIFICATE-----") == 3
    assert printed.count("PRIVATE KEY-----") == 2


def test_a_token_is_printed_and_its_client_is_named_in_the_audit(running, tmp_path, capsys):
    assert run(running, "token", "create", "panel", "--role", "admin", "--days", "1") == 0
    path = tmp_path / "panel.token"
    path.touch(mode=0o600)
    path.write_text(capsys.readouterr().out)
    with client(running, token=path):
        pass
    assert run(running, "access", "--json") == 0
    grants = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert ("token", "panel", "admin") in [(e["kind"], e["name"], e["role"]) for e in grants]
    assert run(running, "access") == 0
    assert "panel" in capsys.readouterr().out
    assert run(running, "revoke", "--token", "panel") == 0
    with client(running, token=running.folder / "token") as admin:
        page = admin.call(AUDIT_READ, AuditRead(limit=1000))
        assert "access.revoke" in {each.record["action"] for each in page.records}
    assert run(running, "audit") == 0
    assert "access.revoke: owner token panel" in capsys.readouterr().out
    assert run(running, "revoke", "--token", "panel") == 1
    assert "there is no token `panel`" in capsys.readouterr().err
