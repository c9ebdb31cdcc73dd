"""Several coordinators with one etcd: one leads, and what it acknowledged survives it."""

import asyncio
import shutil
import signal
import socket

import pytest

from dorad.control.standby import why_silent
from dorafleet.ca.authority import open_authority
from dorafleet.cli.main import run_command
from tests.fleet.coordinator.running import (
    DEADLINE_S,
    Process,
    arguments,
    client,
    coordinator,
    log_of,
    refused,
)
from tests.fleet.store.etcdserver import Cluster
from tests.harness.commands import Service
from tests.harness.ports import free_port


@pytest.fixture
def url(tmp_path):
    cluster = Cluster(tmp_path, 1)
    try:
        cluster.start()
        yield cluster.urls[0]
    finally:
        cluster.end()


async def change(process, *names):
    """Set desired states; return them, and the epoch of the coordinator."""
    async with client(process) as one:
        changed = [
            await one.call(
                "desired.set", robot="arm1", dataflow=name, release="pick-1", if_version=0
            )
            for name in names
        ]
        return changed, (await one.call("coordinator.status"))["epoch"]


async def content(process):
    async with client(process) as one:
        await one.call("audit.verify")
        return (await one.call("desired.get"))["desired"]


def asked(folder, capsys):
    """Return what a command says on the machine of a coordinator that does not answer."""
    port = str(free_port())
    assert run_command(["status", "--state", str(folder), "--port", port]) == 1
    return capsys.readouterr().err


def waiting(folder, url, like):
    """Start a coordinator that does not lead, with the authority of another one."""
    shutil.copytree(like.folder / "ca", folder / "ca")
    process = Service("dorafleet", arguments(folder, "--etcd", url), log_of(folder))
    process.wait_until_printed("waiting to lead")
    return process


@pytest.mark.long
def test_the_second_takes_over_from_a_killed_one_with_all_that_was_acknowledged(tmp_path, url):
    names = [f"flow{number}" for number in range(20)]
    with coordinator(tmp_path / "one", "--etcd", url) as one:
        with waiting(tmp_path / "two", url, one) as other:
            try:
                changed, first = asyncio.run(change(one, *names))
                one.end(signal.SIGKILL)
                two = Process(other, tmp_path / "two")  # returns once it leads
                assert (
                    sorted(asyncio.run(content(two)), key=lambda each: each["version"]) == changed
                )
                _, second = asyncio.run(change(two, "later"))
                assert second > first
                assert two.end() == 0
            finally:
                other.kill()


@pytest.mark.long
def test_only_the_one_that_leads_sends_alerts(tmp_path, url):
    for name in ("one", "two"):
        (tmp_path / name).mkdir(exist_ok=True)
        config = tmp_path / name / "dorafleet.toml"
        config.write_text('[alerts]\nwebhook = "http://127.0.0.1:1/"\n')
        config.chmod(0o600)
    sends = "alerts go to the webhook"
    with coordinator(tmp_path / "one", "--etcd", url) as one:
        assert sends in one.process.printed
        with waiting(tmp_path / "two", url, one) as other:
            try:
                assert sends not in other.printed
                one.end(signal.SIGKILL)
                other.wait_until_printed(sends)
            finally:
                other.kill()


def test_commands_beside_one_that_waits_say_who_leads_and_it_ends_at_once(tmp_path, url, capsys):
    with coordinator(tmp_path / "one", "--etcd", url) as one:
        with waiting(tmp_path / "two", url, one) as other:
            try:
                leader = f"`{socket.gethostname()}:{one.process.pid}` leads"
                other.wait_until_printed(leader)
                assert f"it waits to lead: {leader}" in asked(tmp_path / "two", capsys)
                other.send_signal(signal.SIGTERM)
                assert other.wait(DEADLINE_S) == 0
                asyncio.run(change(one, "a"))
            finally:
                other.kill()


@pytest.mark.long
def test_one_that_was_replaced_while_it_was_stopped_changes_nothing_and_ends(tmp_path, url):
    with coordinator(tmp_path / "one", "--etcd", url) as one:
        with waiting(tmp_path / "two", url, one) as other:
            try:
                asyncio.run(change(one, "a"))
                one.process.send_signal(signal.SIGSTOP)
                two = Process(other, tmp_path / "two")
                asyncio.run(change(two, "b"))
                one.process.send_signal(signal.SIGCONT)
                assert one.process.wait(DEADLINE_S) == 1
                assert "another coordinator may lead now" in one.process.printed
                assert [each["dataflow"] for each in asyncio.run(content(two))] == ["a", "b"]
            finally:
                other.kill()


def test_commands_say_why_the_coordinator_has_ended(tmp_path, capsys):
    refused(tmp_path / "state", "--etcd", "http://127.0.0.1:1")
    assert "it has ended: etcd cannot be reached" in asked(tmp_path / "state", capsys)
    with coordinator(tmp_path / "state") as one:
        assert why_silent(one.folder) == ""
        assert one.end() == 0
    assert "no coordinator is running" in asked(tmp_path / "state", capsys)


def test_a_backup_moves_a_fleet_from_a_file_to_etcd(tmp_path, url, capsys):
    path = tmp_path / "fleet.backup"
    with coordinator(tmp_path / "one") as one:
        asyncio.run(change(one, "a", "b"))
        before = asyncio.run(content(one))
        port = ["--port", str(one.port), "--state", str(one.folder)]
        assert run_command(["backup", str(path), *port]) == 0
    restore = ["restore", str(path), "--etcd", url, "--state", str(tmp_path / "two")]
    assert run_command(restore) == 0
    assert f"etcd at {url}: 12 entries restored" in capsys.readouterr().out
    assert run_command(restore) == 1
    assert "has content already" in capsys.readouterr().err
    said = refused(tmp_path / "two", "--etcd", url)
    assert "is missing: it has the authority of this fleet" in said
    shutil.copytree(tmp_path / "one/ca", tmp_path / "two/ca")
    with coordinator(tmp_path / "two", "--etcd", url) as two:
        after = asyncio.run(content(two))
        assert all(each["version"] > before[-1]["version"] for each in after)
        assert [each | {"version": 0} for each in after] == [
            each | {"version": 0} for each in before
        ]


def test_one_with_another_authority_does_not_start_unless_it_shall_be_the_new_one(tmp_path):
    folder = tmp_path / "state"
    with coordinator(folder) as one:
        assert one.end() == 0
    (folder / "ca").rename(tmp_path / "old")
    open_authority(folder / "ca")
    assert "which is not that of this fleet" in refused(folder)
    for options in (["--new-authority"], []):
        with coordinator(folder, *options) as one:
            assert one.end() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--etcd", "http://192.0.2.1:2379"], "leaves this machine without TLS"),
        (["--etcd", "http://fleet.invalid:2379"], "leaves this machine without TLS"),
        (["--etcd", "127.0.0.1:2379"], "is not an address of etcd"),
        (["--etcd", "http://127.0.0.1:1"], "etcd cannot be reached"),
        (["--etcd", "https://127.0.0.1:1", "--etcd-ca", "/absent"], "certificates of etcd"),
        (["--etcd", "https://127.0.0.1:1", "--etcd-cert", "/absent"], "certificates of etcd"),
    ],
)
def test_a_wrong_etcd_is_named(tmp_path, options, words):
    assert words in refused(tmp_path / "state", *options)
