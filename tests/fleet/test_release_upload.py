"""Releases are left with a coordinator: real processes, TLS, cuts, kills, hostile clients."""

import asyncio
import json
import random
import shutil
import signal
import socket
import sys
import zlib

import asyncssh
import pytest
from websockets.exceptions import ConnectionClosed

from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages import Nothing
from dorad.control.target import Tcp, TlsFiles
from dorad.release import frames
from dorafleet.cli import releaseupload
from dorafleet.coordinator.accessmessages import TOKEN_CREATE, TokenCreate
from dorafleet.coordinator.uploadmessages import (
    RELEASE_LACKING,
    RELEASE_STORED,
    RELEASE_UPLOAD,
    UPLOAD_TICKET,
)
from dorafleet.release.build import BuildOptions, build
from dorafleet.release.signingkey import choose
from dorafleet.release.store import Store
from dorafleet.rollout.messages import RELEASE_PUT, ReleaseRef
from tests.fleet.coordinator.running import coordinator
from tests.fleet.sites import UNSET
from tests.fleet.sshd import Network
from tests.harness.commands import run_command, succeeds
from tests.harness.waiting import DEADLINE_S, until, wait_until

pytestmark = pytest.mark.long

FLOW = """\
nodes:
  - {id: camera, path: camera.py, args: --model model.bin}
"""


class Site:
    """An operator with releases, and the state folder of a coordinator that does not see them."""

    def __init__(self, folder):
        self.folder = folder
        self.store = Store(folder / "store")
        self.uploads = Store(folder / "state" / "uploads")
        self.flow = folder / "flow"
        self.flow.mkdir()
        (self.flow / "dataflow.yml").write_text(FLOW)
        (self.flow / "camera.py").write_text("print('camera')\n")
        self.key = folder / "key"
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(self.key)
        self.key.chmod(0o600)

    def build(self, content):
        (self.flow / "model.bin").write_bytes(content)
        options = BuildOptions(name="pick")
        return build(self.flow / "dataflow.yml", self.store, choose(str(self.key)), options).bundle

    def serve(self, *more, **env):
        words = ("--tls", "--store", str(self.folder / "nothing"), *more)
        return coordinator(self.folder / "state", *words, **env)

    def target(self, port, token=None):
        state = self.folder / "state"
        tls = TlsFiles(state / "authority.pem")
        return (Tcp("127.0.0.1", port, token or state / "token", tls),)

    def run(self, process, *words):
        state = ("--state", str(self.folder / "state"), "--port", str(process.port))
        done = run_command("dorafleet", [*words, *state], timeout=DEADLINE_S)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def upload(self, process, release="pick", *more):
        store = ("--store", str(self.store.folder))
        return self.run(process, "release", "upload", release, *store, *more)

    def wait_for_audit(self, process, uploads):
        """Wait until the audit has this number of uploads; that of the last one is written soon."""

        def audited(audit):
            found = audit.count('"release.upload"')
            assert found <= uploads, audit
            return found == uploads

        wait_until(lambda: self.run(process, "audit", "--json").stdout, audited)

    def is_whole(self, bundle):
        """Whether the coordinator's folder has the release, each file with its content."""
        return self.uploads.check(self.uploads.find(bundle.id)) == 3


def content(size, seed=1):
    return random.Random(seed).randbytes(size)


@pytest.fixture
def site(tmp_path, monkeypatch):
    for name in (*UNSET, "SSH_AUTH_SOCK", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return Site(tmp_path)


async def lacking(target, bundle):
    async with AsyncClient(target) as client:
        return await client.call(RELEASE_LACKING, ReleaseRef(release=bundle.id))


async def stored(target):
    async with AsyncClient(target) as client:
        return (await client.call(RELEASE_STORED, Nothing())).releases


def test_a_release_is_uploaded_once_shown_with_its_reason_and_in_the_audit(site):
    first = site.build(content(300_000))
    with site.serve() as process:
        out = succeeds(site.upload(process))
        assert "3 objects" in out
        assert site.is_whole(first)
        assert "has it already" in site.upload(process).stdout

        changed = bytearray(content(300_000))
        changed[1000:1010] = b"0123456789"
        second = site.build(bytes(changed))
        line = site.upload(process, "pick", "--json").stdout.splitlines()[-1]
        found = json.loads(line)
        assert (found["complete"], found["objects"], found["patches"]) == (True, 1, 1)
        assert found["sent"] < 10_000
        assert site.is_whole(second)

        site.wait_for_audit(process, 2)
        out = succeeds(site.run(process, "release", "stored"))
        assert "pick@2" in out
        assert "nothing needs it: removed in 23h" in out.replace("1d", "23h")
        rows = json.loads(site.run(process, "release", "stored", "--json").stdout)["releases"]
        assert [(each["label"], each["state"], each["by"]) for each in rows] == [
            ("pick@2", "complete", "admin"),
            ("pick@1", "complete", "admin"),
        ]
        done = site.run(process, "backup", str(site.folder / "state" / "fleet.backup"))
        assert done.returncode == 0, done.stderr
        assert (
            f"not in it: the files of uploaded releases; copy {site.uploads.folder}" in done.stderr
        )


def through(site, network):
    """Return the arguments of a command that reaches the coordinator over a bad network."""
    return ["--state", str(site.folder / "state"), "--port", str(network.port)]


@pytest.mark.parametrize("after", [3_000, 9_000, 70_000, 333_333])
def test_an_upload_that_is_cut_continues_where_it_was(site, after):
    bundle = site.build(content(600_000))
    with site.serve() as process, Network(process.port, cuts=5, after=after) as network:
        words = ["release", "upload", "pick", "--store", str(site.store.folder), "--json"]
        done = run_command("dorafleet", [*words, *through(site, network)], timeout=DEADLINE_S)
        assert done.returncode == 0, done.stderr
        assert network.connections > 5
        assert site.is_whole(bundle)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    sending = [line for line in lines if line.get("state") == "sending" and line["rate"] == 0.0]
    left = [each["total"] - each["done"] for each in sending if each["machine"] == "coordinator"]
    assert left == sorted(left, reverse=True)


def partial(site):
    """Return the bytes of files that have arrived."""
    found = sum(path.stat().st_size for path in site.uploads.objects.files())
    return found + sum(site.uploads.objects.partials().values())


def manifests(site):
    """Return the releases that count as complete; each of them must be."""
    whole = site.uploads.all()
    for bundle in whole:
        site.uploads.check(bundle)
    return [bundle.id for bundle in whole]


def test_a_coordinator_that_is_killed_at_any_point_has_no_half_release_and_gets_the_rest(
    site, monkeypatch
):
    bundle = site.build(content(30 << 20))
    sizes = []
    for _ in range(5):
        with site.serve() as process:
            words = ["release", "upload", "pick", "--store", str(site.store.folder)]
            state = ["--state", str(site.folder / "state"), "--port", str(process.port)]
            sent = asyncio.run(_kill_during(site, process, [*words, *state], sizes))
        sizes.append(sent)
        if manifests(site):
            break
    with site.serve() as process:
        assert site.upload(process).returncode == 0
        assert site.is_whole(bundle)
    assert sizes == sorted(sizes)
    assert sizes[0] > 0


async def _kill_during(site, process, words, sizes):
    """Kill the coordinator when more than before has arrived; return how much."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dorafleet.cli", *words),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    before = max(sizes, default=0)
    await until(lambda: partial(site) > before + 100_000 or command.returncode is not None)
    process.end(signal.SIGKILL)
    if command.returncode is None:
        command.kill()
    await command.wait()
    assert not manifests(site) or partial(site) >= 30 << 20
    return partial(site)


def opening(bundle, manifest=None):
    compressed = frames.compress(bundle.content if manifest is None else manifest)
    return b"".join(
        (
            frames.frame(frames.HELLO, frames.Hello(frames.PROTOCOL)),
            frames.frame(frames.MANIFEST, compressed),
            frames.frame(frames.SIGNATURE, bundle.signature),
        )
    )


def piece(wanted, content):
    begin = frames.Begin(wanted.sha256, wanted.executable, 0)
    return frames.frame(frames.BEGIN, begin) + frames.frame(frames.PIECE, frames.compress(content))


async def refusal(site, process, bundle, sent):
    """Upload bytes with a ticket; return how they are refused."""
    async with AsyncClient(site.target(process.port)) as client:
        await client.call(RELEASE_PUT, releaseupload.put_of(bundle))
        ticket = await client.call(RELEASE_UPLOAD, ReleaseRef(release=bundle.id))
        async with client.beside(ticket.path, {UPLOAD_TICKET: ticket.ticket}) as line:
            await line.send(sent)
            received = b""
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    received += await line.recv()
                    while len(received) >= frames.HEADER.size:
                        kind, size = frames.check_header(received[: frames.HEADER.size])
                        end = frames.HEADER.size + size
                        if len(received) < end:
                            break
                        if kind == frames.REFUSAL:
                            payload = received[frames.HEADER.size : end]
                            return frames.decode(payload, frames.Refusal)
                        received = received[end:]


def by_path(bundle, path):
    return next(each.object for each in bundle.manifest.files if each.path == path)


async def test_hostile_uploads_are_refused_and_leave_no_release(site):
    bundle = await asyncio.to_thread(site.build, content(1_000))
    other = await asyncio.to_thread(site.build, content(1_000, 2))
    model, dataflow = by_path(bundle, "model.bin"), by_path(bundle, "dataflow.yml")
    bad_path = bundle.content.replace(b'"model.bin"', b'"../../m"')
    unknown = frames.Begin("0" * 64, False, 0)
    with site.serve() as process:
        cases = {
            "damaged": (opening(bundle) + piece(model, content(1_000, 3)), "not " + model.sha256),
            "longer": (opening(bundle) + piece(model, content(2_000)), "longer than it may be"),
            "another release": (opening(other), "the manifest is that of"),
            "..": (opening(bundle, bad_path), "the manifest is that of"),
            "not lacking": (
                opening(bundle) + frames.frame(frames.BEGIN, unknown),
                "although it is not lacking",
            ),
            "not all": (
                opening(bundle) + piece(dataflow, FLOW.encode()) + frames.frame(frames.END),
                "2 files were not sent",
            ),
            "far ahead": (
                opening(bundle)
                + frames.frame(frames.BEGIN, frames.Begin(model.sha256, False, 500)),
                "but 0 bytes arrived",
            ),
            "huge frame": (frames.HEADER.pack(frames.OFFER, (1 << 32) - 1), "is too long"),
        }
        for name, (sent, expected) in cases.items():
            found = await refusal(site, process, bundle, sent)
            assert expected in found.message, name
            assert manifests(site) == []
        assert (await lacking(site.target(process.port), bundle)).objects == 2
        # The honest one after all that.
        succeeds(await asyncio.to_thread(site.upload, process, "pick@1"))
        assert site.is_whole(bundle)
    outside = {path.name for path in (site.folder / "state").iterdir()}
    assert "m" not in outside


async def test_a_release_whose_manifest_leads_out_of_its_folder_is_not_even_registered(site):
    bundle = await asyncio.to_thread(site.build, content(1_000))
    bad = bundle.content.replace(b'"model.bin"', b'"../../m"')
    with site.serve() as process:
        async with AsyncClient(site.target(process.port)) as client:
            put = releaseupload.put_of(bundle)
            put.content = zlib.compress(bad)
            with pytest.raises(ControlError, match=r"contains '\.\.'"):
                await client.call(RELEASE_PUT, put)
            with pytest.raises(ControlError, match="no release"):
                await client.call(RELEASE_UPLOAD, ReleaseRef(release=bundle.id))


async def token(site, process, name, role):
    async with AsyncClient(site.target(process.port)) as client:
        made = await client.call(TOKEN_CREATE, TokenCreate(name=name, role=role, days=1))
    path = site.folder / f"{name}.token"
    path.write_text(made.token)
    path.chmod(0o600)
    return site.target(process.port, path)


async def connect(client, ticket, path="/upload"):
    """Use a ticket; return the code with which the connection is closed."""
    async with client.beside(path, {UPLOAD_TICKET: ticket}) as line:
        with pytest.raises(ConnectionClosed) as caught:
            async with asyncio.timeout(DEADLINE_S):
                await line.recv()
    return caught.value.rcvd.code


async def test_only_operators_upload_each_with_a_ticket_of_their_own(site):
    bundle = await asyncio.to_thread(site.build, content(1_000))
    ref = ReleaseRef(release=bundle.id)
    with site.serve() as process:
        viewer = await token(site, process, "vera", "viewer")
        ann, bob = [await token(site, process, name, "operator") for name in ("ann", "bob")]
        async with (
            AsyncClient(viewer) as looking,
            AsyncClient(ann) as one,
            AsyncClient(bob) as two,
        ):
            await one.call(RELEASE_PUT, releaseupload.put_of(bundle))
            with pytest.raises(ControlError, match="needs the role operator"):
                await looking.call(RELEASE_UPLOAD, ref)
            assert (await looking.call(RELEASE_LACKING, ref)).objects == 3
            ticket = await one.call(RELEASE_UPLOAD, ref)
            for client, given in (
                (two, ticket.ticket),
                (looking, ticket.ticket),
                (one, "é"),
                (one, ""),
            ):
                assert await connect(client, given) == 1008

            # Two at a time: the second one is told who uploads what; the same user starts anew.
            with pytest.raises(ControlError, match="ann uploads pick@1 now"):
                await two.call(RELEASE_UPLOAD, ref)
            async with one.beside(ticket.path, {UPLOAD_TICKET: ticket.ticket}) as line:
                await line.send(opening(bundle))
                await line.recv()
                with pytest.raises(ControlError, match="ann uploads pick@1 now"):
                    await two.call(RELEASE_UPLOAD, ref)
                assert await connect(one, ticket.ticket) == 1008
                again = await one.call(RELEASE_UPLOAD, ref)
                with pytest.raises(ConnectionClosed):
                    async with asyncio.timeout(DEADLINE_S):
                        while True:
                            await line.recv()
            assert again.ticket != ticket.ticket
        outcome = await releaseupload.send_files(ann, bundle, site.store)
        assert outcome.error is None
        outcome = await releaseupload.send_files(bob, bundle, site.store)
        assert outcome.result.objects == 0
        await asyncio.to_thread(site.wait_for_audit, process, 2)
        assert [each.by for each in await stored(ann)] == ["bob"]


async def test_more_than_the_limit_is_refused_with_what_to_do(site):
    await asyncio.to_thread(site.build, content(300_000))
    with site.serve("--upload-limit", "200KB") as process:
        done = await asyncio.to_thread(site.upload, process)
        assert done.returncode == 1
        assert "that uploaded releases may take" in done.stderr
        assert "--upload-limit" in done.stderr
        assert manifests(site) == []


def test_another_coordinator_says_who_has_the_files_and_what_to_do(site):
    """As after a failover with etcd, or with a new disk: the record is there, the files are not."""
    bundle = site.build(content(1_000))
    with site.serve() as process:
        assert site.upload(process).returncode == 0
        site.wait_for_audit(process, 1)
    shutil.rmtree(site.uploads.folder)
    with site.serve() as process:
        shown = json.loads(site.run(process, "release", "stored", "--json").stdout)
        (row,) = shown["releases"]
        assert (row["state"], row["host"]) == ("elsewhere", socket.gethostname())
        assert row["lacking"] == bundle_size(bundle)
        assert site.upload(process).returncode == 0
        assert site.is_whole(bundle)


def bundle_size(bundle):
    return sum(each.size for each in bundle.manifest.files)


async def test_uploads_of_one_user_in_quick_succession_are_all_in_the_audit(site):
    bundles = [await asyncio.to_thread(site.build, content(1_000, seed)) for seed in range(4)]
    with site.serve() as process:
        target = site.target(process.port)
        async with AsyncClient(target) as client:
            for bundle in bundles:
                await client.call(RELEASE_PUT, releaseupload.put_of(bundle))
        for bundle in bundles:
            assert (await releaseupload.send_files(target, bundle, site.store)).error is None
        assert [each.label for each in await stored(target)] == [f"pick@{n}" for n in (4, 3, 2, 1)]
        await asyncio.to_thread(site.wait_for_audit, process, 4)
