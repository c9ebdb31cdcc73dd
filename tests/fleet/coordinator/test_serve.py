"""`dorafleet serve`: what it answers, whom it refuses, and what survives it."""

import asyncio
import json
import os
import random
import signal
import socket
import stat
from pathlib import Path

import msgspec
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from dorad.control.errors import ControlError
from dorad.control.token import read_token
from dorafleet.coordinator.audit import Head
from dorafleet.coordinator.conversion import BACKUP, NEWEST, RUNS
from dorafleet.coordinator.rollouts import HEADS
from dorafleet.coordinator.storechoice import DATABASE
from dorafleet.coordinator.token import make_token
from dorafleet.store.model import Transaction
from dorafleet.store.sqlite import SqliteStore
from tests.fleet.coordinator.running import (
    DEADLINE_S,
    RefusedError,
    client,
    connected,
    coordinator,
    refused,
)
from tests.fleet.store.test_conversion import head as one_head
from tests.fleet.store.test_conversion import run as one_run
from tests.harness.waiting import until

FRAMES = int(os.environ.get("FLEET_FRAMES", "5000"))
"""Random frames before and after authentication; others in each run if their number is given."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One coordinator; each test uses its own dataflows."""
    with coordinator(tmp_path_factory.mktemp("coordinator") / "state") as found:
        yield found


def wanted(dataflow, version, **more):
    base = {"robot": "arm1", "dataflow": dataflow, "release": "pick-1", "if_version": version}
    return base | more


# -- requests --------------------------------------------------------------------------------------


async def test_status_names_the_process_and_its_store(shared):
    async with client(shared) as one:
        status = await one.call("coordinator.status")
    assert status["pid"] == shared.process.pid
    assert status["state"] == str(shared.folder / "coordinator.db")
    assert status["robots"] == 2
    assert 0 < status["epoch"] <= status["revision"]
    Head.parse(status["audit"])


async def test_robots_are_those_of_the_file_and_were_never_seen(shared):
    async with client(shared) as one:
        robots = (await one.call("robot.list"))["robots"]
        assert [(each["id"], each["host"], each["labels"]) for each in robots] == [
            ("arm1", "10.0.0.11", {"zone": "hall"}),
            ("arm2", "10.0.0.12", {}),
        ]
        for robot in robots:
            assert robot["state"] == "never-seen"
            assert robot["reason"] == "it has never connected"


async def test_the_generation_grows_with_the_content_only(shared):
    async with client(shared) as one:
        first = await one.call("desired.set", **wanted("grow", 0, params={"speed": 1}))
        assert (first["generation"], first["enabled"]) == (1, True)
        version = first["version"]
        same = await one.call("desired.set", **wanted("grow", version, params={"speed": 1}))
        assert same == first
        # 1 is not true, and not 1.0 either.
        for number, speed in enumerate((True, 1.0, 1), start=2):
            changed = wanted("grow", version, params={"speed": speed})
            second = await one.call("desired.set", **changed)
            assert second["generation"] == number
            assert second["version"] > version
            version = second["version"]
        found = await one.call("desired.get", robot="arm1", dataflow="grow")
        assert found["desired"] == [second]


async def test_a_change_of_another_version_is_a_conflict_with_the_difference(shared):
    async with client(shared, "one") as one, client(shared, "two") as two:
        first = await one.call("desired.set", **wanted("clash", 0))
        changes = [
            each.call("desired.set", **wanted("clash", first["version"], release=name))
            for each, name in ((one, "pick-2"), (two, "pick-3"))
        ]
        results = await asyncio.gather(*changes, return_exceptions=True)
        [refused] = [each for each in results if isinstance(each, RefusedError)]
        [winner] = [each for each in results if isinstance(each, dict)]
        assert refused.code == "conflict"
        assert f"at version {winner['version']}, not {first['version']}" in str(refused)
        [difference] = refused.error["problems"]
        assert difference.startswith(f'release is "{winner["release"]}", not "pick-')
        with pytest.raises(RefusedError, match="there is no desired state") as caught:
            await one.call("desired.set", **wanted("absent", 5))
        assert caught.value.code == "conflict"
        with pytest.raises(RefusedError) as caught:
            await one.call("desired.set", **wanted("clash", 0))
        assert caught.value.code == "conflict"


async def test_every_change_is_in_the_audit_with_who_made_it_and_nothing_else_is(shared):
    async with client(shared, "auditor 7") as one:
        before = Head.parse((await one.call("coordinator.status"))["audit"])
        first = await one.call("desired.set", **wanted("audited", 0, enabled=False))
        await one.call("desired.set", **wanted("audited", first["version"], enabled=False))
        with pytest.raises(RefusedError):
            await one.call("desired.set", **wanted("audited", 0))
        await one.call("desired.set", **wanted("audited", first["version"]))
        page = await one.call("audit.read", after=before.sequence)
        records = page["records"]
        assert [each["sequence"] - before.sequence for each in records] == [1, 2]
        record = records[0]["record"]
        assert record.pop("time") > 0
        assert record.pop("epoch") > 0
        assert record == {
            "user": os.geteuid(),
            "peer": "admin",
            "role": "admin",
            "client": "auditor 7",
            "action": "desired.set",
            "robot": "arm1",
            "dataflow": "audited",
            "content": {"generation": 1, "release": "pick-1", "params": {}, "enabled": False},
        }
        assert page["head"] == f"{records[-1]['sequence']}:{records[-1]['hash']}"
        assert await one.call("audit.verify", known=page["head"]) == {"head": page["head"]}
        assert await one.call("audit.verify", known=str(before)) == {"head": page["head"]}
        one_record = await one.call("audit.read", after=before.sequence, limit=1)
        assert [each["sequence"] for each in one_record["records"]] == [records[0]["sequence"]]
        assert one_record["head"] == page["head"]
        future = Head(Head.parse(page["head"]).sequence + 5, "0" * 64)
        with pytest.raises(RefusedError, match="its end was cut off"):
            await one.call("audit.verify", known=str(future))


@pytest.mark.parametrize(
    ("method", "params", "code", "words"),
    [
        ("desired.set", wanted("x", 0, robot="arm3"), "not-found", "there is no robot `arm3`"),
        ("desired.get", {"robot": "arm3"}, "not-found", "there is no robot `arm3`"),
        ("desired.set", wanted("a/b", 0), "bad-request", "is not the name of a dataflow"),
        ("desired.set", wanted("", 0), "bad-request", "is not the name of a dataflow"),
        ("desired.set", wanted("é", 0), "bad-request", "is not the name of a dataflow"),
        ("desired.set", wanted("x" * 300, 0), "bad-request", "is not the name of a dataflow"),
        ("desired.get", {"dataflow": "../x"}, "bad-request", "is not the name of a dataflow"),
        ("desired.set", wanted("x", "0"), "bad-request", "`if_version` in `params`"),
        ("desired.set", {"robot": "arm1"}, "bad-request", "needs `dataflow`"),
        ("desired.set", wanted("x", 0, relase="y"), "bad-request", "no parameter `relase`"),
        ("desired.set", wanted("x", 0, params=[]), "bad-request", "`params` in `params`"),
        ("desired.set", wanted("x", 0, release="y" * (2 << 20)), "too-large", "are allowed"),
        ("audit.read", {"limit": 0}, "bad-request", "must be from 1 to 1000"),
        ("audit.read", {"limit": 1001}, "bad-request", "must be from 1 to 1000"),
        ("audit.read", {"after": -1}, "bad-request", "must be 0 or more"),
        ("audit.verify", {"known": "7"}, "bad-request", "is not a head"),
        ("daemon.stati", {}, "unknown-method", "there is no method `daemon.stati`"),
        ("desired.sett", {}, "unknown-method", "there is no method"),
    ],
)
async def test_a_wrong_request_is_refused_with_the_reason(shared, method, params, code, words):
    async with client(shared) as one:
        with pytest.raises(RefusedError) as caught:
            await one.call(method, **params)
        assert caught.value.code == code
        assert words in str(caught.value)
        assert (await one.call("coordinator.status"))["robots"] == 2


async def test_params_may_be_nested_but_not_without_end(shared):
    deep: object = 1
    for _ in range(31):
        deep = [deep]
    async with client(shared) as one:
        done = await one.call("desired.set", **wanted("deep", 0, params={"a": deep}))
        assert done["params"] == {"a": deep}
        for levels in (32, 400):
            for _ in range(levels - 31):
                deep = [deep]
            with pytest.raises(RefusedError, match="nested"):
                await one.call("desired.set", **wanted("deep", done["version"], params={"a": deep}))
        await one.call("audit.verify")


# -- who may connect -------------------------------------------------------------------------------


async def test_no_client_gets_in_without_the_token(shared):
    wrong = [
        {"X-Nothing": "1"},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer " + "0" * 64},
        {"Authorization": f"Basic {shared.token}"},
        {"Authorization": f"Bearer {shared.token[:-1]}"},
        {"Authorization": f"Bearer {shared.token}0"},
        {"Cookie": f"token={shared.token}"},
    ]
    for headers in wrong:
        with pytest.raises(InvalidStatus) as caught:
            async with connected(shared, **headers):
                pass
        assert caught.value.response.status_code == 403
        assert json.loads(caught.value.response.body)["code"] == "refused"


async def test_another_version_of_the_protocol_is_refused_with_both_numbers(shared):
    for version, word in ((2, "the dorafleet is older"), (0, "the client is older")):
        async with connected(shared) as connection:
            await connection.send(json.dumps({"hello": "future", "protocol": version}))
            error = json.loads(await connection.recv())["error"]
            assert error["code"] == "version"
            assert "version 1 of the control protocol" in error["message"]
            assert f"version {version}" in error["message"]
            assert word in error["message"]
            with pytest.raises(ConnectionClosed):
                await connection.recv()


def dice(seed):
    """Return the source of random frames, and print what repeats it."""
    seed = random.randrange(1 << 32) if "FLEET_FRAMES" in os.environ else seed
    print("seed", seed)
    return random.Random(seed)


@pytest.mark.timeout(120 + FRAMES // 50)
async def test_random_bytes_before_authentication_change_nothing(shared):
    chance = dice(11)
    head = (
        f"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {'0' * 64}\r\n\r\n"
    ).encode()
    before = await status_of(shared)
    for _ in range(FRAMES // 100):
        await asyncio.gather(*(send_nonsense(shared.port, chance, head) for _ in range(20)))
    assert await status_of(shared) == before


async def status_of(process):
    async with client(process) as one:
        return await one.call("coordinator.status")


async def send_nonsense(port, chance, head):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for _ in range(5):
            writer.write(mutated(chance, head))
            await writer.drain()
        writer.write_eof()
        answer = await reader.read()
        assert b" 101 " not in answer.partition(b"\r\n")[0]
    except OSError:
        pass  # it was cut off
    finally:
        writer.transport.abort()


def mutated(chance, head):
    if chance.random() < 0.3:
        return chance.randbytes(chance.randrange(1, 200))
    content = bytearray(head)
    for _ in range(chance.randrange(0, 8)):
        content[chance.randrange(len(content))] = chance.randrange(256)
    return bytes(content)


@pytest.mark.timeout(120 + FRAMES // 50)
async def test_random_frames_after_authentication_change_nothing(shared):
    chance = dice(12)
    good = json.dumps({"id": 1, "method": "desired.get", "params": {"robot": "arm1"}})
    before = await status_of(shared)
    for _ in range(0, FRAMES, 500):
        async with client(shared) as one:
            reading = asyncio.create_task(drain(one.connection))
            for _ in range(500):
                await one.connection.send(nonsense(chance, good))
            await one.connection.close()
            await reading
    async with client(shared) as one:
        assert await one.call("coordinator.status") == before
        assert (await one.call("audit.verify"))["head"] == before["audit"]


async def drain(connection):
    """Read all answers: each has an id or none, and an error unless the request was right."""
    try:
        async for frame in connection:
            answer = json.loads(frame)
            assert answer.keys() & {"error", "result", "end"}
            if "error" in answer:
                assert answer["error"]["code"] != "internal"
    except ConnectionClosed:
        pass


def nonsense(chance, good):
    kind = chance.randrange(4)
    if kind == 0:
        return chance.randbytes(chance.randrange(300))
    if kind == 1:
        return "".join(chr(chance.randrange(1, 0xD7FF)) for _ in range(chance.randrange(100)))
    if kind == 2:
        return "[" * chance.randrange(2000)
    text = list(good)
    for _ in range(chance.randrange(1, 6)):
        text[chance.randrange(len(text))] = chr(chance.randrange(32, 127))
    return "".join(text)


async def test_a_frame_that_is_too_large_closes_only_its_own_connection(shared):
    async with client(shared) as other, client(shared) as one:
        await one.connection.send("x" * (5 << 20))
        with pytest.raises(ConnectionClosed) as caught:
            await one.connection.recv()
        assert caught.value.rcvd.code == 1009
        await other.call("coordinator.status")


# -- the process -----------------------------------------------------------------------------------


def test_the_files_are_for_this_user_alone_and_only_loopback_listens(shared):
    for each in shared.folder.iterdir():
        if each.name != "cluster.yml":
            mode = 0o700 if each.is_dir() else 0o600
            assert stat.S_IMODE(each.stat().st_mode) == mode, each
    addresses = [
        line.split()[1]
        for line in Path("/proc/net/tcp").read_text().splitlines()
        if line.split()[3] == "0A" and line.split()[1].endswith(f":{shared.port:04X}")
    ]
    assert addresses == [f"0100007F:{shared.port:04X}"]


@pytest.mark.parametrize(
    ("listen", "words"),
    [
        ("192.0.2.1", "port 0 cannot be used: Cannot assign requested address (this machine does"),
        ("localhost", "is not an IP address"),
    ],
)
def test_an_address_that_is_not_its_own_is_refused(tmp_path, listen, words):
    assert words in refused(tmp_path, "--listen", listen)


async def test_what_was_acknowledged_survives_sigkill_and_the_epoch_grows(tmp_path):
    folder = tmp_path / "state"
    acknowledged = {}
    epochs, heads = [], []
    for number in range(3):
        with coordinator(folder) as process:
            async with client(process) as one:
                status = await one.call("coordinator.status")
                epochs.append(status["epoch"])
                for known in heads:
                    assert await one.call("audit.verify", known=known)
                found = (await one.call("desired.get"))["desired"]
                assert {each["dataflow"]: each for each in found} == acknowledged
                for index in range(5):
                    name = f"flow{number}-{index}"
                    acknowledged[name] = await one.call("desired.set", **wanted(name, 0))
                heads.append((await one.call("audit.read"))["head"])
                process.end(signal.SIGKILL)
    assert epochs == sorted(set(epochs))


async def test_the_store_of_an_earlier_version_is_converted_once_with_a_backup_beside(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    run, head = one_run("talk", 1, ended=True), one_head("pick", 1)
    puts = {f"{RUNS}talk": run, f"{HEADS}00000001": head, f"{NEWEST}pick": 1}
    store = await SqliteStore.open(folder / DATABASE)
    await store.commit(Transaction(puts={k: msgspec.json.encode(v) for k, v in puts.items()}))
    await store.close()
    found = []
    for _ in range(2):
        with coordinator(folder) as process:
            async with client(process) as one:
                found.append((await one.call("deployment.list"))["deployments"])
                listed = (await one.call("dataflow.list"))["dataflows"]
            assert process.end() == 0
        assert [each["uuid"] for each in listed] == [run.uuid]
    assert [(each["name"], each["source"]) for each in found[0]] == [
        ("pick", "release"),
        ("talk", "inline"),
    ]
    assert found[0] == found[1]
    assert stat.S_IMODE((folder / BACKUP).stat().st_mode) == 0o600


async def test_sigterm_ends_it_at_once_also_with_clients(tmp_path):
    with coordinator(tmp_path / "state") as process:
        async with client(process) as one:
            assert await asyncio.to_thread(process.end) == 0
            with pytest.raises(ConnectionClosed):
                await one.connection.recv()
    assert not (tmp_path / "state/coordinator.db-wal").exists()


async def test_systemd_learns_that_it_is_ready_alive_and_ending(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(DEADLINE_S)
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        with coordinator(tmp_path / "state", **env) as process:
            assert notify.recv(1000) == b"READY=1\nSTATUS=waiting to lead"
            # How often it says that it is alive before it leads depends on how fast it starts.
            status = f"STATUS=listening at 127.0.0.1 port {process.port}".encode()
            seen = set()
            while not {status, b"WATCHDOG=1"} <= seen:
                seen.add(notify.recv(1000))
            assert process.end() == 0
            while not (message := notify.recv(1000)).startswith(b"STOPPING=1"):
                assert message == b"WATCHDOG=1"


def test_a_second_one_on_the_same_folder_is_refused(shared):
    assert "another process uses" in refused(shared.folder)


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda folder: (folder / "token").write_text("x"), "others may use"),
        (lambda folder: secret(folder / "token", "short"), "holds no token"),
        (lambda folder: (folder / "token").mkdir(mode=0o700), "is not a file"),
        (lambda folder: (folder / "token").symlink_to("/dev/zero"), "cannot be read"),
        (lambda folder: (folder / "coordinator.db").write_text("x" * 5000), "is damaged"),
        (lambda folder: folder.chmod(0o777), "others may write to"),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path, prepare, words):
    folder = tmp_path / "state"
    folder.mkdir()
    prepare(folder)
    said = refused(folder)
    assert words in said
    assert str(folder) in said


def test_a_token_that_a_killed_coordinator_has_not_written_is_made_again(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    secret(folder / "token", "")
    token = make_token(folder / "token")
    assert read_token(folder / "token") == token
    assert make_token(folder / "token") == token
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600


def test_an_empty_file_that_others_may_read_gets_no_token(tmp_path):
    path = tmp_path / "token"
    path.touch(mode=0o644)
    with pytest.raises(ControlError, match="others may use"):
        make_token(path)
    assert path.read_text() == ""


def secret(path, text):
    path.touch(mode=0o600)
    path.write_text(text)


async def test_the_receivers_of_alerts_are_read_again_at_a_signal(tmp_path):
    state = tmp_path / "state"
    with coordinator(state) as one:
        config = state / "dorafleet.toml"

        async def receivers_are(wanted):
            async with client(one) as asking:

                async def told():
                    found = await asking.call("alerts.receivers")
                    return [each["place"] for each in found["receivers"]], found["problem"]

                return await until(told, lambda seen: wanted(*seen))

        await receivers_are(lambda places, problem: (places, problem) == ([], ""))
        config.write_text('[alerts]\nwebhook = "http://127.0.0.1:9/x"\n')
        config.chmod(0o600)
        one.process.send_signal(signal.SIGHUP)
        await receivers_are(lambda places, _: places == ["http://127.0.0.1:9"])
        config.write_text('[alerts]\nwebhoook = "http://127.0.0.1:9/x"\n')
        one.process.send_signal(signal.SIGHUP)
        places, problem = await receivers_are(lambda _, problem: problem)
        assert places == ["http://127.0.0.1:9"]
        assert "webhoook" in problem
        config.unlink()
        one.process.send_signal(signal.SIGHUP)
        await receivers_are(lambda places, problem: (places, problem) == ([], ""))
        assert one.end() == 0
