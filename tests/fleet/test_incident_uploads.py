"""Robots upload incidents to a coordinator: real processes, TLS, cuts, kills, budgets, liars."""

import asyncio
import hashlib
import json
import os
import random
import signal
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from dorad.agent import incidentupload
from dorad.agent.incidentupload import IncidentUpload
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.incidentfiles import (
    INCIDENTS_PATH,
    IncidentFile,
    IncidentInfo,
    IncidentManifest,
    IncidentsOrder,
    IncidentsState,
)
from dorad.control.messages import IncidentList, Nothing
from dorad.control.target import Tcp, TlsFiles
from dorad.control.tls import Identity, client_context
from dorad.daemon.api import incidents as daemon_incidents
from dorad.record.box import incidents as marks
from dorad.release import frames
from dorad.release.send import MAX_AHEAD
from dorafleet.ca.authority import open_authority
from dorafleet.coordinator.accessmessages import TOKEN_CREATE, TokenCreate
from dorafleet.coordinator.incidentmessages import (
    INCIDENT_TICKET,
    INCIDENTS_FETCH,
    INCIDENTS_REMOVE,
    INCIDENTS_UPLOADED,
    UploadedRef,
)
from tests.fleet.coordinator.running import coordinator
from tests.fleet.sites import UNSET
from tests.fleet.sshd import Network
from tests.harness.commands import run_command, succeeds
from tests.harness.waiting import DEADLINE_S, until
from tests.record.boxes import NOW
from tests.record.files import START, numbers, write

pytestmark = pytest.mark.long

PER_DAY = "100MB"


class Robot:
    """A robot with a black box, and the task of its agent that uploads."""

    def __init__(self, site, name, port):
        self.site = site
        self.port = port
        self.folder = site.folder / name
        self.box = self.folder / "box"
        (self.box / marks.INCIDENTS).mkdir(parents=True)
        self.settings = self.folder / "dorad.toml"
        self.allow(PER_DAY)
        pair = open_authority(site.state / "ca").issue_pair(Identity("robot", name))
        self.key = self.folder / "key.pem"
        self.key.write_text(pair.key + pair.issued.chain)
        self.key.chmod(0o600)
        self.start()

    def start(self):
        """Begin as an agent that was started, and to which a coordinator has attached."""
        self.upload = IncidentUpload(self.folder, self.settings, self, self.connect)
        self.upload.attached(0.0)

    def allow(self, per_day, rate="100MB"):
        self.settings.write_text(f'[incidents]\nper_day = "{per_day}"\nrate = "{rate}"\n')

    def add(self, name, *contents, source="command", age=1000.0, note=""):
        own = self.box / marks.INCIDENTS / name
        own.mkdir()
        for number, content in enumerate(contents):
            (own / f"{number:08}_{int(START):019}.mcap").write_bytes(content)
        mark = marks.Mark(int((time.time() - age) * 1e9), 1.0, 1.0, note, source)
        (own / marks.INFO).write_bytes(msgspec.json.encode(mark))
        return own

    async def client(self):
        return self

    async def call(self, _method, _params):
        """Answer as the robot's dorad."""
        record = SimpleNamespace(uuid="0" * 32, name="arm")
        box = await asyncio.to_thread(daemon_incidents._read, self.box, record)
        return IncidentList(boxes=[box])

    @asynccontextmanager
    async def connect(self):
        context = client_context(self.site.state / "authority.pem", self.key, self.key)
        try:
            async with connect(
                f"wss://coordinator{INCIDENTS_PATH}",
                host="127.0.0.1",
                port=self.port,
                ssl=context,
                compression=None,
                close_timeout=1,
            ) as connection:
                yield connection
        except (OSError, InvalidHandshake) as error:
            raise ControlError("unavailable", str(error)) from None

    @asynccontextmanager
    async def running(self):
        task = asyncio.create_task(self.upload.run())
        try:
            yield
            if task.done():
                task.result()
        finally:
            task.cancel()
            await asyncio.wait({task})


class Site:
    def __init__(self, folder):
        self.folder = folder
        self.state = folder / "state"
        self.process = None

    def serve(self, config=""):
        self.state.mkdir(exist_ok=True)
        (self.state / "dorafleet.toml").write_text(config)
        return coordinator(self.state, "--tls", "--store", str(self.folder / "nothing"))

    def target(self, process, token=None):
        tls = TlsFiles(self.state / "authority.pem")
        return (Tcp("127.0.0.1", process.port, token or self.state / "token", tls),)

    def run(self, process, *words):
        state = ("--state", str(self.state), "--port", str(process.port))
        done = run_command("dorafleet", ["incidents", *words, *state], timeout=DEADLINE_S)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    async def listed(self, process):
        async with AsyncClient(self.target(process)) as client:
            return await client.call(INCIDENTS_UPLOADED, Nothing())

    async def states(self, process):
        return {each.id: each.state for each in (await self.listed(process)).incidents}

    async def wait_for(self, process, **wanted):
        """Wait until incidents have these states; return the list."""
        answer = await until(
            lambda: self.listed(process),
            lambda seen: wanted.items() <= {each.id: each.state for each in seen.incidents}.items(),
        )
        return {each.id: each for each in answer.incidents}

    def objects(self, robot="arm1"):
        return [
            path
            for path in (self.state / "incidents" / f"robot-{robot}" / "objects").rglob("*")
            if path.is_file()
        ]


@pytest.fixture
def site(tmp_path, monkeypatch):
    for name in (*UNSET, "SSH_AUTH_SOCK", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(incidentupload, "CHECK_S", 0.05)
    monkeypatch.setattr(incidentupload, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(incidentupload, "LONGEST_RETRY_S", 0.2)
    return Site(tmp_path)


def content(size, seed=1):
    return random.Random(seed).randbytes(size)


async def test_incidents_arrive_the_most_urgent_first_and_are_listed_fetched_and_removed(site):
    with site.serve() as process:
        robot = Robot(site, "arm1", process.port)
        segment = site.folder / "segment.mcap"
        write(segment, numbers(50))
        shared = segment.read_bytes()
        age = time.time() - START / 1e9
        robot.add("dock", shared, age=age, note="missed the dock")
        robot.add("crash", shared, source="node-failed", age=900.0)
        robot.add("loop", shared, content(1000), source="node grip", age=10.0)
        arrived = []
        async with robot.running():
            while len(arrived) < 3:
                states = await site.states(process)
                arrived += [k for k, v in states.items() if v == "complete" and k not in arrived]
                await asyncio.sleep(0.01)
        order = ["dock", "crash", "loop"]
        assert [each for each in order if each in arrived] == order
        # A segment that incidents share is sent and kept once.
        assert len(site.objects()) == 2
        listed = await site.listed(process)
        assert listed.used < 2 * (len(shared) + 16384 + 1000)
        assert 0 < listed.robots[0].spent < 2 * len(shared) + 20_000

        out = succeeds(await asyncio.to_thread(site.run, process, "list"))
        assert "missed the dock" in out
        target = site.folder / "dock.mcap"
        fetch = ("fetch", "dock", "--robot", "arm1", "-o", str(target), "--json")
        out = succeeds(await asyncio.to_thread(site.run, process, *fetch))
        assert json.loads(out)["messages"] == 50
        done = await asyncio.to_thread(site.run, process, "open", "dock")
        assert "source/number" in done.stdout, done.stderr
        (site.folder / "cache").mkdir(exist_ok=True)
        assert not list((site.folder / "cache").rglob("objects"))

        # What is removed here does not come again.
        succeeds(await asyncio.to_thread(site.run, process, "remove", "dock"))
        robot.start()
        robot.add("later", content(500), source="input-broken")
        async with robot.running():
            rows = await site.wait_for(process, later="complete", dock="removed")
        assert "admin has removed it" in rows["dock"].why
        done = await asyncio.to_thread(site.run, process, "fetch", "dock")
        assert (done.returncode, "no incident `dock` is here" in done.stderr) == (1, True)
    with site.serve() as process:
        assert (await site.states(process)).keys() == {"crash", "loop", "later"}


@pytest.mark.parametrize("after", [900, 20_000, 150_000])
async def test_an_upload_that_is_cut_continues_where_it_was(site, after):
    with site.serve() as process, Network(process.port, cuts=4, after=after) as network:
        robot = Robot(site, "arm1", network.port)
        robot.add("dock", *(content(200_000, seed) for seed in range(3)))
        async with robot.running():
            await site.wait_for(process, dock="complete")
        assert network.connections > 4
        # A cut costs what was on the way.
        lost = 4 * (MAX_AHEAD + frames.PIECE_SIZE)
        assert robot.upload._budget.spent < 600_000 + lost + 50_000
        assert sum(path.stat().st_size for path in site.objects()) == 600_000


async def test_kills_of_both_ends_leave_whole_incidents_and_the_rest_comes_later(site):
    pieces = [content(300_000, seed) for seed in range(8)]
    with site.serve() as process:
        robot = Robot(site, "arm1", process.port)
        robot.allow(PER_DAY, "1MB")
        robot.add("dock", *pieces)
        async with robot.running():
            await until(lambda: len(site.objects()) >= 2)
        process.end(signal.SIGKILL)
    before = {path: path.stat().st_ino for path in site.objects()}
    with site.serve() as process:
        robot.port = process.port
        robot.allow(PER_DAY)
        spent = robot.upload._budget.spent
        robot.start()  # a new process: it knows the budget from its file
        assert robot.upload._budget.spent >= spent > 500_000
        async with robot.running():
            await site.wait_for(process, dock="complete")
        # What had arrived did not come again.
        assert before.items() <= {path: path.stat().st_ino for path in site.objects()}.items()
        assert robot.upload._budget.spent < 2_400_000 + 600_000


async def test_a_budget_that_is_spent_names_what_waits_and_goes_on_the_next_day(site):
    with site.serve() as process:
        robot = Robot(site, "arm1", process.port)
        robot.allow("1MB")
        now = time.time()
        robot.upload._budget._clock = lambda: now
        robot.add("first", content(700_000))
        robot.add("second", content(700_000, 2), age=2000.0)
        robot.add("third", content(300_000, 3), age=3000.0)
        async with robot.running():
            rows = await site.wait_for(process, first="complete", second="partial")
            while not rows["second"].why:
                rows = await site.wait_for(process, second="partial", third="waiting")
            assert "budget of 1.0 MB for 24 hours is spent" in rows["second"].why
            assert rows["third"].why == rows["second"].why
            assert 200_000 < rows["second"].arrived < 400_000
            robot_row = (await site.listed(process)).robots[0]
            assert 1_000_000 < robot_row.spent <= robot_row.per_day == 1 << 20
            done = await asyncio.to_thread(site.run, process, "list")
            assert "partial" in done.stdout
        now += 26 * 3600.0
        robot.start()
        robot.upload._budget._clock = lambda: now
        async with robot.running():
            await site.wait_for(process, second="complete", third="complete")


async def test_the_coordinator_s_own_budget_and_quota_bound_a_robot_and_spare_the_others(site):
    config = '[incidents]\nper_robot = "1MB"\nper_day = "4MB"\nlimit = "20MB"\n'
    with site.serve(config) as process:
        robot, other = (Robot(site, name, process.port) for name in ("arm1", "arm2"))
        robot.add("crash", content(600_000), source="node-failed", age=5000.0)
        other.add("theirs", content(600_000), source="node grip", age=5000.0)
        async with robot.running(), other.running():
            await site.wait_for(process, crash="complete", theirs="complete")
            # Nonsense in masses comes, and pushes out only itself, the oldest first.
            for number in range(6):
                robot.add(
                    f"n{number}", content(200_000, number), source="node grip", age=900 - number
                )
            rows = await site.wait_for(process, n5="complete", n4="complete")
            robot.add("huge", content(1_200_000), source="command")
            rows = await site.wait_for(process, huge="left-out", crash="complete")
        assert "do not fit" in rows["huge"].why
        assert rows["theirs"].state == "complete"
        used = {each.robot: each.used for each in (await site.listed(process)).robots}
        assert used["arm1"] <= 1 << 20
        done = await asyncio.to_thread(site.run, process, "list")
        assert done.returncode == 1
        assert "do not fit" in done.stdout
        for _ in range(5):  # more than 4 MB were never read of it
            assert robot.upload._budget.spent < 4 << 20


def info(**more):
    values = {"dataflow": "arm", "id": "dock", "time": NOW / 1e9, "before": 1.0, "after": 1.0}
    return IncidentInfo(**{**values, "source": "command", "note": "", "bytes": 1000, **more})


def manifest(content_, /, **more):
    file = {"name": "00000001_0.mcap", "sha256": hashlib.sha256(content_).hexdigest()}
    file |= {"size": len(content_), **more}
    return msgspec.json.encode(
        {"info": msgspec.to_builtins(info()), "files": [list(file.values())]}
    )


def opening(manifest_):
    return b"".join(
        (
            frames.frame(frames.HELLO, frames.Hello(frames.PROTOCOL)),
            frames.frame(frames.MANIFEST, frames.compress(manifest_)),
            frames.frame(frames.SIGNATURE),
        )
    )


def piece(sha256, content_):
    begin = frames.frame(frames.BEGIN, frames.Begin(sha256, False, 0))
    return begin + frames.frame(frames.PIECE, frames.compress(content_)) + frames.frame(frames.END)


async def lie(robot, sent, *infos):
    """Connect as a robot that sends bytes of its own; return how it ends."""
    state = IncidentsState(incidents=list(infos) or [info()], per_day=1)
    async with robot.connect() as connection:
        await connection.send(msgspec.json.encode(state).decode())
        order = msgspec.json.decode(await connection.recv(), type=IncidentsOrder)
        if order.take is None:
            return "nothing"
        with pytest.raises(ConnectionClosed) as caught:
            await connection.send(sent)
            while True:
                await connection.recv()
    return caught.value.rcvd.reason if caught.value.rcvd else ""


async def test_a_robot_that_lies_leaves_nothing_and_reaches_nothing_outside(site):
    true = b"x" * 1000
    sha256 = json.loads(manifest(true))["files"][0][1]
    cases = {
        "another content": opening(manifest(true)) + piece(sha256, b"y" * 1000),
        "longer": opening(manifest(true)) + piece(sha256, b"x" * 2000),
        "a path": opening(manifest(true, name="../../../x.mcap")),
        "no hash": opening(manifest(true, sha256="../../x")),
        "a negative size": opening(manifest(true, size=-1)),
        "a size beyond the quota": opening(manifest(true, size=1 << 50)),
        "another incident": opening(manifest(true).replace(b'"dock"', b'"deck"')),
        "no manifest": opening(b"[" * 100_000),
        "a huge frame": frames.HEADER.pack(frames.MANIFEST, (1 << 32) - 1),
        "not all": opening(manifest(true)) + frames.frame(frames.END),
        "unasked": opening(manifest(true)) + piece("0" * 64, true),
    }
    with site.serve() as process:
        robot = Robot(site, "arm1", process.port)
        for name, sent in cases.items():
            # A refused one is not taken again for a while: each case has an id of its own.
            id_ = name.replace(" ", "-")
            own = sent
            reason = await lie(robot, own.replace(b"dock", id_.encode()), info(id=id_))
            assert reason not in ("", "nothing"), name
        for text in ("{", "[]", '{"incidents": [{"id": "../x"}]}', "x" * (5 << 20)):
            async with robot.connect() as connection:
                with pytest.raises(ConnectionClosed):
                    await connection.send(text)
                    await connection.recv()
        states = await site.states(process)
        assert "complete" not in states.values()
        assert site.objects() == []
        # The honest one after all that.
        robot.add("honest", true)
        async with robot.running():
            await site.wait_for(process, honest="complete")
    assert not list(site.folder.glob("**/x.mcap"))


async def test_only_robots_upload_and_each_fetch_needs_a_ticket_of_its_own(site):
    with site.serve() as process:
        robot = Robot(site, "arm1", process.port)
        robot.add("dock", content(1000))
        async with robot.running():
            await site.wait_for(process, dock="complete")
        ref = UploadedRef(id="dock")
        async with AsyncClient(site.target(process)) as admin:
            made = await admin.call(TOKEN_CREATE, TokenCreate(name="vera", role="viewer", days=1))
            token = site.folder / "vera.token"
            token.write_text(made.token)
            token.chmod(0o600)
            async with AsyncClient(site.target(process, token)) as viewer:
                ticket = await viewer.call(INCIDENTS_FETCH, ref)
                with pytest.raises(ControlError, match="needs the role operator"):
                    await viewer.call(INCIDENTS_REMOVE, ref)
                for client, given in (
                    (admin, ticket.ticket),
                    (viewer, ticket.ticket),
                    (viewer, "é"),
                ):
                    async with client.beside(ticket.path, {INCIDENT_TICKET: given}) as connection:
                        with pytest.raises(ConnectionClosed) as caught:
                            await connection.recv()
                        assert caught.value.rcvd.code == 1008
            with pytest.raises(ControlError, match="is for robots that have a certificate"):
                async with admin.beside(INCIDENTS_PATH, {}):
                    pass
        async with robot.connect() as connection:
            await connection.close()


async def test_what_a_node_puts_into_an_incident_leads_nowhere_else(site):
    secret = site.folder / "secret.mcap"
    secret.write_bytes(b"key")
    with site.serve() as process:
        robot = Robot(site, "arm1", process.port)
        link = robot.add("link")
        (link / "00000001_0.mcap").symlink_to(secret)
        pipe = robot.add("pipe")
        os.mkfifo(pipe / "00000001_0.mcap")
        strange = robot.add("strange", content(10))
        (strange / "a b.mcap").write_bytes(b"x")
        whole = robot.box / marks.INCIDENTS / "whole"
        robot.add("true", content(1000))
        whole.symlink_to(robot.box / marks.INCIDENTS / "true")
        async with robot.running():
            rows = await site.wait_for(
                process, link="left-out", pipe="left-out", strange="left-out", true="complete"
            )
        assert "whole" not in rows
        assert all(rows[name].why for name in ("link", "pipe", "strange"))
        assert len(site.objects()) == 1


def test_a_mistake_in_the_robot_s_file_uploads_nothing_and_is_reported(site):
    with site.serve() as process:
        robot = Robot(site, "arm1", process.port)
        robot.add("dock", content(10))
        for text, expected in (
            ("[incidents]\n", "needs `per_day`"),
            ('[incidents]\nper_day = "1KB"\n', "must be at least"),
            ('[incidents]\nper_day = "1MB"\nspeed = 3\n', "unknown key `speed`"),
        ):
            robot.settings.write_text(text)
            asyncio.run(robot.upload._look())
            assert expected in robot.upload.problem
        robot.settings.write_text("")
        asyncio.run(robot.upload._look())
        assert robot.upload.problem == ""
        assert asyncio.run(site.states(process)) == {}


def test_an_incident_manifest_is_small_and_strict():
    file = IncidentFile(name="00000001_0.mcap", sha256="0" * 64, size=1)
    encoded = msgspec.json.encode(IncidentManifest(info=info(), files=[file]))
    assert msgspec.json.decode(encoded, type=IncidentManifest).files == [file]
    for bad in (b'"size":-1', b'"size":1.5'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(
                encoded.replace(b'",1]', b'",' + bad.rpartition(b":")[2] + b"]"),
                type=IncidentManifest,
            )
