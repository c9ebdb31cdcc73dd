"""`dorafleet audit`, `backup` and `restore` against a running coordinator."""

import asyncio
import json
import os
import shutil
import subprocess
import sys

import apsw
import pytest

from dorad.control.errors import ControlError
from dorad.control.loopback import check_listener
from dorafleet.cli.main import run_command
from tests.fleet.coordinator.running import DEADLINE_S, client, coordinator


@pytest.fixture
def running(tmp_path):
    with coordinator(tmp_path / "state") as process:
        yield process


async def change(process, *names):
    async with client(process, "someone\x1b[31m 1") as one:
        for name in names:
            await one.call(
                "desired.set", robot="arm1", dataflow=name, release="pick-1", if_version=0
            )


def run(capsys, process, *words):
    code = run_command([*words, "--state", str(process.folder), "--port", str(process.port)])
    out, err = capsys.readouterr()
    return code, out, err


def test_audit_shows_every_change_and_verifies_them(running, capsys):
    names = [f"flow{number}" for number in range(120)]
    asyncio.run(change(running, *names))
    code, out, _ = run(capsys, running, "audit")
    assert code == 0
    assert "\x1b" not in out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "Number Time Who Client Change"
    assert len(lines) == 122
    assert lines[1].endswith("fleet.import: arm1, arm2")
    assert " admin someone" in lines[2]
    assert lines[121].endswith("desired.set arm1/flow119: pick-1, enabled, generation 1")

    code, out, _ = run(capsys, running, "audit", "--after", "119", "--json")
    assert [json.loads(line)["record"]["dataflow"] for line in out.splitlines()] == names[118:]
    assert len(run(capsys, running, "audit", "--since", "1h")[1].splitlines()) == 122
    assert len(run(capsys, running, "audit", "--since", "0s", "--json")[1].splitlines()) == 0

    code, out, _ = run(capsys, running, "audit", "verify")
    assert code == 0
    head = out.split("head: ")[1].strip()
    assert out == f"ok, 121 records; head: {head}\n"
    code, out, _ = run(capsys, running, "audit", "verify", "--known", head, "--json")
    assert (code, json.loads(out)) == (0, {"head": head})


def test_a_changed_row_and_a_cut_tail_fail_the_verification(running, capsys):
    asyncio.run(change(running, "a", "b", "c"))
    _, out, _ = run(capsys, running, "audit", "verify")
    head = out.split("head: ")[1].strip()
    assert running.end() == 0
    edit(
        running.folder,
        "UPDATE entries SET value = replace(value, 'pick-1', 'pick-9') WHERE key LIKE 'audit/%2'",
        text=True,
    )
    with coordinator(running.folder) as process:
        code, out, err = run(capsys, process, "audit", "verify")
        assert (code, out) == (1, "")
        assert "record 2 of the audit, or one before, was changed" in err
        process.end()
    edit(
        running.folder,
        "UPDATE entries SET value = replace(value, 'pick-9', 'pick-1') WHERE key LIKE 'audit/%2'",
        text=True,
    )
    edit(running.folder, "DELETE FROM entries WHERE key LIKE 'audit/%3'")
    edit(
        running.folder,
        "UPDATE entries SET value = CAST('2:' || (SELECT substr(CAST(value AS"
        " TEXT), 1, 64) FROM entries WHERE key LIKE 'audit/%2') AS BLOB)"
        " WHERE key = 'audit-head'",
    )
    with coordinator(running.folder) as process:
        code, out, _ = run(capsys, process, "audit", "verify")
        assert (code, out[:15]) == (0, "ok, 2 records; ")
        code, _, err = run(capsys, process, "audit", "verify", "--known", head)
        assert code == 1
        assert "its end was cut off" in err


def edit(folder, sql, *, text=False):
    """Change the store as a user with access to the file could."""
    connection = apsw.Connection(str(folder / "coordinator.db"))
    if text:
        sql = sql.replace("replace(value", "CAST(replace(CAST(value AS TEXT)")
        sql = sql.replace("') WHERE", "') AS BLOB) WHERE")
    connection.execute(sql)
    assert connection.changes() == 1
    connection.close()


def test_a_backup_is_restored_into_a_new_store_with_its_audit(running, tmp_path, capsys):
    asyncio.run(change(running, "a", "b"))
    _, out, _ = run(capsys, running, "audit", "verify")
    path = tmp_path / "fleet.backup"
    assert run(capsys, running, "backup", str(path)) == (0, f"{path}: 12 entries\n", "")
    code, printed, _ = run(capsys, running, "backup", str(path), "--json")
    uploads = {"folder": str(running.folder / "uploads"), "bytes": 0}
    expected = {"file": str(path), "entries": 12, "uploads": uploads}
    assert (code, json.loads(printed)) == (0, expected)
    assert run_command(["restore", str(path), "--state", str(running.folder)]) == 1
    assert "another process uses" in capsys.readouterr().err
    status = asyncio.run(status_of(running))
    running.end()
    assert run_command(["restore", str(path), "--state", str(running.folder)]) == 1
    assert "has content already" in capsys.readouterr().err

    folder = tmp_path / "new"
    assert run_command(["restore", str(path), "--state", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}/coordinator.db: 12 entries restored\n"
    shutil.copytree(running.folder / "ca", folder / "ca")
    with coordinator(folder) as process:
        head = out.split()[-1]
        _, verified, _ = run(capsys, process, "audit", "verify", "--known", head)
        # The restore is in the audit, too.
        assert int(verified.split()[1]) == int(out.split()[1]) + 1
        later = asyncio.run(status_of(process))
        assert later["epoch"] > status["epoch"]
        assert later["revision"] > status["revision"]
        asyncio.run(change(process, "c"))


async def status_of(process):
    async with client(process) as one:
        return await one.call("coordinator.status")


def test_what_cannot_be_backed_up_or_restored_is_named(running, tmp_path, capsys):
    code, _, err = run(capsys, running, "backup", str(tmp_path / "absent/x"))
    assert code == 1
    assert f"{tmp_path}/absent/x cannot be written: No such file or directory" in err
    code = run_command(["restore", str(tmp_path / "absent"), "--state", str(tmp_path / "new")])
    assert code == 1
    assert "absent cannot be read" in capsys.readouterr().err
    (tmp_path / "damaged").write_text("nonsense")
    code = run_command(["restore", str(tmp_path / "damaged"), "--state", str(tmp_path / "new")])
    assert code == 1
    assert "damaged cannot be restored" in capsys.readouterr().err


def test_without_a_coordinator_the_command_says_how_to_start_one(running, capsys):
    running.end()
    code, _, err = run(capsys, running, "audit")
    assert code == 1
    assert f"no coordinator is running at 127.0.0.1 port {running.port}" in err
    assert "dorafleet up" in err


def test_a_token_that_cannot_be_read_is_named(running, tmp_path, capsys):
    running.folder = tmp_path / "absent"
    code, _, err = run(capsys, running, "audit")
    assert code == 1
    assert "absent/token cannot be read" in err
    assert "another program uses its port" in err


def test_a_wrong_token_is_refused_with_the_reason(running, capsys):
    (running.folder / "token").write_text("0" * 64 + "\n")
    code, _, err = run(capsys, running, "audit")
    assert code == 1
    assert "the token is wrong" in err


def test_options_that_do_not_go_together_are_refused(running, capsys):
    assert run(capsys, running, "audit", "--known", "1:0")[0] == 2
    assert run(capsys, running, "audit", "verify", "--after", "1")[0] == 2
    assert run(capsys, running, "audit", "verify", "--since", "1h")[0] == 2
    code, _, err = run(capsys, running, "audit", "verify", "--known", "1:0")
    assert code == 2
    assert "is not a head of an audit" in err


LISTEN = """
import socket, time
sock = socket.create_server(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act for another user")
def test_the_token_is_not_sent_to_the_port_of_another_user(running, capsys):
    with subprocess.Popen(
        ["/usr/bin/env", "python3", "-c", LISTEN], user=65534, stdout=subprocess.PIPE, text=True
    ) as impostor:
        try:
            assert impostor.stdout is not None
            running.port = int(impostor.stdout.readline())
            code, _, err = run(capsys, running, "audit")
        finally:
            impostor.kill()
    assert code == 1
    assert "belongs to users [65534], not to you; the token was not sent" in err


def test_a_port_without_a_listener_has_no_owner(running):
    check_listener("127.0.0.1", running.port, os.geteuid())
    running.end()
    with pytest.raises(ControlError, match="belongs to an unknown user"):
        check_listener("127.0.0.1", running.port, os.geteuid())


def test_commands_import_nothing_they_do_not_need():
    code = "import sys; from dorafleet.cli.main import run_command; run_command(['audit', '-h']);"
    done = subprocess.run(
        [sys.executable, "-c", code + "assert 'apsw' not in sys.modules, 'apsw'"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


FLOW = """\
nodes:
  - {id: camera, path: c.py, deploy: {labels: {zone: hall}}}
"""


def test_explain_asks_the_coordinator(running, capsys, tmp_path):
    (tmp_path / "flow.yml").write_text(FLOW)
    code, out, err = run(capsys, running, "explain", str(tmp_path / "flow.yml"))
    assert (code, err) == (1, "")
    assert "arm1: it has never connected; arm2: it has no label `zone`" in out
    code, out, _ = run(capsys, running, "explain", str(tmp_path / "flow.yml"), "camera", "--json")
    (found,) = json.loads(out)["nodes"]
    assert [each["rule"] for each in found["machines"]] == ["away", "labels"]
    code, out, err = run(capsys, running, "explain", "demo")
    assert (code, out) == (1, "")
    assert "demo" in err
    code, _, err = run(capsys, running, "explain", str(tmp_path / "absent.yml"))
    assert code == 1
    assert "absent.yml" in err


def test_explain_without_a_coordinator_names_the_way_without_one(capsys, tmp_path):
    (tmp_path / "flow.yml").write_text(FLOW)
    words = ["explain", str(tmp_path / "flow.yml"), "--state", str(tmp_path), "--port", "1"]
    assert run_command(words) == 1
    assert "use --cluster FILE without one" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["list", "start", "logs", "node"])
def test_commands_of_dora_are_named(capsys, name):
    assert run_command([name]) == 2
    assert f"`dora {name}`" in capsys.readouterr().err
