"""Who gets in over TLS, what they may do there, and whom a revocation ends: with real sockets."""

import asyncio
import json
import ssl
import time

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from dorad.control.errors import ControlError
from dorad.control.messages.agent import AGENT_METHODS
from dorad.control.roles import may_call
from dorad.control.tls import Identity, check_coordinator, client_context, server_context
from dorafleet.ca.authority import open_authority
from dorafleet.coordinator.messages import METHODS
from tests.fleet.ca.keys import csr_of, key_pem, new_key
from tests.fleet.coordinator.running import (
    RefusedError,
    client,
    connected,
    coordinator,
)

DAY = 86400.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One coordinator with TLS; no test enrols arm2 for good."""
    with coordinator(tmp_path_factory.mktemp("access") / "state", "--tls") as found:
        yield found


def admin(process):
    return client(process, Authorization=f"Bearer {process.token}")


def holding(folder, key, chain, authority):
    """Return the context of a client with a certificate."""
    folder.mkdir(exist_ok=True)
    (folder / "key.pem").write_text(key_pem(key))
    (folder / "chain.pem").write_text(chain)
    (folder / "authority.pem").write_text(authority)
    return client_context(folder / "authority.pem", folder / "chain.pem", folder / "key.pem")


async def enrol(process, folder, robot="arm1", **more):
    """Give a robot its certificate as an admin does, and return its context."""
    key = new_key()
    async with admin(process) as one:
        found = await one.call("enrol.sign", robot=robot, csr=csr_of(key), **more)
    return holding(folder, key, found["chain"], found["authority"])


async def refusal(process, tls=None, path="/", **headers):
    with pytest.raises(InvalidStatus) as caught:
        async with connected(process, tls, path, **headers):
            pass
    assert caught.value.response.status_code == 403
    return json.loads(caught.value.response.body)["message"]


async def ended(connection):
    """Wait until the coordinator has closed a connection."""
    with pytest.raises(ConnectionClosed):
        while True:
            await connection.recv()


# -- roles -----------------------------------------------------------------------------------------


def test_a_higher_role_may_do_what_a_lower_one_may():
    for method in METHODS.values():
        allowed = [may_call(role, method) for role in ("viewer", "operator", "admin")]
        assert allowed == sorted(allowed)
        assert allowed[-1]
        assert not may_call("robot", method)
        assert may_call("enrolling", method) == (method.name == "enrol.sign")


def test_no_client_may_call_what_an_agent_answers():
    roles = ("viewer", "operator", "admin", "robot", "enrolling")
    for method in AGENT_METHODS.values():
        assert not any(may_call(role, method) for role in roles)


async def test_beyond_loopback_there_is_always_tls(tmp_path):
    with coordinator(tmp_path / "state", "--listen", "0.0.0.0") as process:
        reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not (await reader.read()).startswith(b"HTTP")
        writer.transport.abort()
        async with admin(process) as one:
            await one.call("robot.list")


# -- enrolment -------------------------------------------------------------------------------------


async def token_for(process, robot):
    async with admin(process) as one:
        return await one.call("enrol.token", robot=robot)


async def test_a_token_enrols_the_robot_that_it_was_made_for_once(tmp_path):
    with coordinator(tmp_path / "state", "--tls") as process:
        made = await token_for(process, "arm1")
        assert len(made["fingerprint"]) == 64
        bearer = {"Authorization": f"Bearer {made['token']}"}
        key = new_key()
        async with client(process, **bearer) as robot:
            with pytest.raises(RefusedError, match="the token is for robot `arm1`"):
                await robot.call("enrol.sign", robot="arm2", csr=csr_of(key))
            with pytest.raises(RefusedError, match="needs the role viewer"):
                await robot.call("robot.list")
            with pytest.raises(RefusedError, match="not a request for a certificate"):
                await robot.call("enrol.sign", robot="arm1", csr="x")
            found = await robot.call("enrol.sign", robot="arm1", csr=csr_of(key))
        assert found["authority"] == made["authority"]
        async with client(process, **bearer) as other:
            with pytest.raises(RefusedError, match="used already"):
                await other.call("enrol.sign", robot="arm1", csr=csr_of(new_key()))
        tls = holding(tmp_path / "robot", key, found["chain"], found["authority"])
        async with connected(process, tls, "/agent"):
            pass


async def test_a_robot_whose_certificate_got_lost_gets_another_one_for_its_key(tmp_path):
    with coordinator(tmp_path / "state", "--tls") as process:
        made = await token_for(process, "arm1")
        bearer = {"Authorization": f"Bearer {made['token']}"}
        key = new_key()
        async with client(process, **bearer) as robot:
            lost = await robot.call("enrol.sign", robot="arm1", csr=csr_of(key))
            found = await robot.call("enrol.sign", robot="arm1", csr=csr_of(key))
        tls = holding(tmp_path / "robot", key, found["chain"], found["authority"])
        async with connected(process, tls, "/agent"):
            pass
        tls = holding(tmp_path / "lost", key, lost["chain"], lost["authority"])
        assert "was revoked" in await refusal(process, tls, "/agent")


@pytest.mark.parametrize("method", ["access.revoke", "enrol.sign"])
async def test_a_used_token_gives_nothing_after_the_robot_was_revoked_or_enrolled_again(
    tmp_path, method
):
    with coordinator(tmp_path / "state", "--tls") as process:
        made = await token_for(process, "arm1")
        bearer = {"Authorization": f"Bearer {made['token']}"}
        key = new_key()
        async with client(process, **bearer) as robot:
            await robot.call("enrol.sign", robot="arm1", csr=csr_of(key))
        async with admin(process) as one:
            if method == "access.revoke":
                await one.call(method, kind="robot", name="arm1")
            else:
                await one.call(method, robot="arm1", csr=csr_of(new_key()), again=True)
        async with client(process, **bearer) as robot:
            with pytest.raises(RefusedError, match="used already"):
                await robot.call("enrol.sign", robot="arm1", csr=csr_of(key))


async def test_a_token_that_many_use_at_once_enrols_one(tmp_path):
    with coordinator(tmp_path / "state", "--tls") as process:
        made = await token_for(process, "arm1")

        async def use():
            async with client(process, Authorization=f"Bearer {made['token']}") as robot:
                return await robot.call("enrol.sign", robot="arm1", csr=csr_of(new_key()))

        results = await asyncio.gather(*(use() for _ in range(5)), return_exceptions=True)
        assert sum(isinstance(each, dict) for each in results) == 1


async def test_a_new_token_replaces_the_one_before(shared):
    first = await token_for(shared, "arm2")
    await token_for(shared, "arm2")
    bearer = {"Authorization": f"Bearer {first['token']}"}
    assert await refusal(shared, **bearer) == "the token is wrong"


async def test_a_robot_that_is_enrolled_is_not_enrolled_twice_unless_asked_for(tmp_path):
    with coordinator(tmp_path / "state", "--tls") as process:
        first = await enrol(process, tmp_path / "first")
        with pytest.raises(RefusedError, match="is enrolled already") as caught:
            await enrol(process, tmp_path / "second")
        assert caught.value.code == "exists"
        made = await token_for(process, "arm1")
        async with client(process, Authorization=f"Bearer {made['token']}") as robot:
            for again, words in ((False, "is enrolled already"), (True, "has no certificate")):
                with pytest.raises(RefusedError, match=words):
                    await robot.call("enrol.sign", robot="arm1", csr=csr_of(new_key()), again=again)
        second = await enrol(process, tmp_path / "second", again=True)
        assert "was revoked" in await refusal(process, first, "/agent")
        async with connected(process, second, "/agent"):
            pass


async def test_a_machine_that_is_not_in_the_file_is_not_enrolled(shared, tmp_path):
    async with admin(shared) as one:
        for method, more in (("enrol.sign", {"csr": csr_of(new_key())}), ("enrol.token", {})):
            with pytest.raises(RefusedError, match="there is no robot `arm3`") as caught:
                await one.call(method, robot="arm3", **more)
            assert caught.value.code == "not-found"


# -- certificates ----------------------------------------------------------------------------------


async def test_a_robot_with_a_certificate_connects_where_robots_do_and_nowhere_else(
    shared, tmp_path
):
    tls = await enrol(shared, tmp_path, "arm1", again=True)
    async with connected(shared, tls, "/agent") as connection:
        found = connection.transport.get_extra_info("ssl_object")
        assert check_coordinator(found).kind == "coordinator"
        assert found.version() == "TLSv1.3"
    assert "may connect at `/agent` only" in await refusal(shared, tls)
    bearer = {"Authorization": f"Bearer {shared.token}"}
    assert "is for robots" in await refusal(shared, path="/agent", **bearer)


async def test_no_client_gets_in_without_certificate_or_token(shared):
    assert await refusal(shared, X="1") == "no token was sent"
    assert await refusal(shared, path="/agent", X="1") == "no token was sent"


async def test_a_certificate_of_another_authority_ends_the_handshake(shared, tmp_path):
    foreign = open_authority(tmp_path / "ca")
    key = new_key()
    issued = foreign.issue(csr_of(key), Identity("robot", "arm1"))
    own = (shared.folder / "authority.pem").read_text()
    tls = holding(tmp_path / "robot", key, issued.chain, own)
    with pytest.raises((OSError, WebSocketException)):
        async with connected(shared, tls, "/agent") as connection:
            await connection.recv()
    async with admin(shared) as one:
        assert (await one.call("coordinator.status"))["robots"] == 2


async def test_a_client_finds_out_that_the_server_is_of_another_fleet(shared, tmp_path):
    foreign = open_authority(tmp_path / "ca")
    (tmp_path / "authority.pem").write_text(foreign.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        async with connected(shared, client_context(tmp_path / "authority.pem")):
            pass


def issued_days_ago(process, folder, monkeypatch, days, identity=None):
    """Return the context of a holder whose certificate the fleet's authority signed in the past."""
    key = new_key()
    with monkeypatch.context() as patch:
        patch.setattr("dorafleet.ca.authority.time.time", lambda: time.time_ns() / 1e9 - days * DAY)
        authority = open_authority(process.folder / "ca")
        issued = authority.issue(csr_of(key), identity or Identity("robot", "arm2"))
    return holding(folder, key, issued.chain, authority.certificate)


@pytest.mark.parametrize("days", [-40_000, -30, 0, 200, 395, 450])
async def test_a_robot_is_admitted_from_its_certificate_s_past_to_90_days_after_it(
    shared, tmp_path, monkeypatch, days
):
    tls = issued_days_ago(shared, tmp_path, monkeypatch, days)
    async with connected(shared, tls, "/agent"):
        pass


async def test_a_certificate_that_is_too_old_is_refused_with_its_age(shared, tmp_path, monkeypatch):
    tls = issued_days_ago(shared, tmp_path, monkeypatch, 365 + 91)
    message = await refusal(shared, tls, "/agent")
    assert message == "the certificate of robot `arm2` expired 91 days ago"


async def test_an_operator_s_certificate_is_not_good_after_its_end(shared, tmp_path, monkeypatch):
    ann = Identity("operator", "ann", "admin")
    async with client(shared, tls=issued_days_ago(shared, tmp_path, monkeypatch, 364, ann)) as one:
        await one.call("robot.list")
    tls = issued_days_ago(shared, tmp_path, monkeypatch, 366, ann)
    assert "expired 1 day ago" in await refusal(shared, tls)


@pytest.mark.parametrize(
    ("identity", "words"),
    [
        (Identity("robot", "arm9"), "there is no robot `arm9`"),
        (Identity("coordinator", "main"), "coordinator `main` may connect at `/copies` only"),
    ],
)
async def test_a_certificate_of_another_kind_is_no_robot_s(
    shared, tmp_path, monkeypatch, identity, words
):
    tls = issued_days_ago(shared, tmp_path, monkeypatch, 0, identity)
    assert words in await refusal(shared, tls, "/agent")


async def test_a_robot_is_no_coordinator(shared, tmp_path):
    """A robot of the fleet listens where the coordinator should."""
    authority = open_authority(shared.folder / "ca")
    key = new_key()
    issued = authority.issue(csr_of(key), Identity("robot", "arm1"))
    holding(tmp_path, key, issued.chain, authority.certificate)
    context = server_context(
        tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "authority.pem"
    )
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        trusting = client_context(tmp_path / "authority.pem")
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        with pytest.raises(ControlError, match="certificate of dorad:robot/arm1, not that of a co"):
            check_coordinator(writer.get_extra_info("ssl_object"))
        writer.transport.abort()


# -- revocation ------------------------------------------------------------------------------------


async def test_a_revoked_robot_is_cut_off_at_once_and_refused_until_it_is_enrolled_again(tmp_path):
    with coordinator(tmp_path / "state", "--tls") as process:
        tls = await enrol(process, tmp_path / "robot")
        other = await enrol(process, tmp_path / "other", "arm2")
        async with connected(process, tls, "/agent") as robot, connected(process, other, "/agent"):
            async with admin(process) as one:
                done = await one.call("access.revoke", kind="robot", name="arm1")
                assert done == {"certificates": 1, "connections": 1}
                await ended(robot)
        assert "certificate of robot `arm1` was revoked" in await refusal(process, tls, "/agent")
        async with connected(process, other, "/agent"):
            pass
        process.end()
    with coordinator(tmp_path / "state", "--tls") as process:
        assert "was revoked" in await refusal(process, tls, "/agent")
        again = await enrol(process, tmp_path / "again")
        async with connected(process, again, "/agent"):
            pass
        assert "was revoked" in await refusal(process, tls, "/agent")


async def test_a_robot_that_the_store_does_not_know_can_be_revoked(tmp_path, monkeypatch):
    """As after a restore: the robot was enrolled after the backup."""
    with coordinator(tmp_path / "state", "--tls") as process:
        tls = issued_days_ago(process, tmp_path / "robot", monkeypatch, 0)
        async with connected(process, tls, "/agent") as robot, admin(process) as one:
            done = await one.call("access.revoke", kind="robot", name="arm2")
            assert done == {"certificates": 0, "connections": 1}
            await ended(robot)
        assert "was revoked" in await refusal(process, tls, "/agent")


# -- operators and tokens --------------------------------------------------------------------------


async def operator(process, folder, name, role):
    async with admin(process) as one:
        bundle = (await one.call("operator.add", name=name, role=role))["pem"]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.pem").write_text(bundle)
    return client_context(folder / f"{name}.pem", folder / f"{name}.pem")


async def test_each_role_may_do_what_it_is_for(shared, tmp_path):
    wanted = {"robot": "arm1", "dataflow": "roles", "release": "x", "if_version": 0}
    viewer = await operator(shared, tmp_path, "vic", "viewer")
    async with client(shared, tls=viewer) as one:
        await one.call("robot.list")
        with pytest.raises(RefusedError, match="needs the role operator; `vic` has the role view"):
            await one.call("desired.set", **wanted)
    async with client(shared, tls=await operator(shared, tmp_path, "olga", "operator")) as one:
        await one.call("desired.set", **wanted)
        for method, params in (
            ("enrol.token", {"robot": "arm1"}),
            ("operator.add", {"name": "eve", "role": "admin"}),
            ("access.revoke", {"kind": "operator", "name": "vic"}),
            ("coordinator.backup", {"path": "/dev/null"}),
        ):
            with pytest.raises(RefusedError, match="needs the role admin") as caught:
                await one.call(method, **params)
            assert caught.value.code == "refused"
    async with client(shared, tls=await operator(shared, tmp_path, "ada", "admin")) as one:
        grants = (await one.call("access.list"))["grants"]
        assert {"vic", "olga", "ada"} <= {each["name"] for each in grants}
        with pytest.raises(RefusedError, match="operator `vic` exists already"):
            await one.call("operator.add", name="vic", role="admin")
        done = await one.call("access.revoke", kind="operator", name="vic")
        assert done["certificates"] == 1
    assert "was revoked" in await refusal(shared, viewer)


async def test_a_token_has_its_role_until_it_is_revoked(shared):
    async with admin(shared) as one:
        made = await one.call("token.create", name="panel", role="viewer", days=1)
        bearer = {"Authorization": f"Bearer {made['token']}"}
        with pytest.raises(RefusedError, match="token `panel` exists already"):
            await one.call("token.create", name="panel", role="viewer", days=1)
        async with client(shared, **bearer) as panel:
            await panel.call("robot.list")
            with pytest.raises(RefusedError, match="needs the role admin"):
                await panel.call("token.create", name="more", role="admin", days=1)
            done = await one.call("access.revoke", kind="token", name="panel")
            assert done["connections"] == 1
            await ended(panel.connection)
        assert await refusal(shared, **bearer) == "the token is wrong"
        with pytest.raises(RefusedError, match="there is no token `panel`"):
            await one.call("access.revoke", kind="token", name="panel")


async def test_a_token_is_in_no_file(shared):
    async with admin(shared) as one:
        made = await one.call("token.create", name="secret", role="viewer", days=1)
    for path in shared.folder.rglob("*"):
        assert path.is_dir() or made["token"].encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("method", "params", "words"),
    [
        ("token.create", {"name": "", "role": "viewer", "days": 1}, "is not a name"),
        ("token.create", {"name": "a/b", "role": "viewer", "days": 1}, "is not a name"),
        ("token.create", {"name": "x" * 201, "role": "viewer", "days": 1}, "is not a name"),
        ("token.create", {"name": "x", "role": "root", "days": 1}, "role"),
        ("token.create", {"name": "x", "role": "robot", "days": 1}, "role"),
        ("token.create", {"name": "x", "role": "viewer", "days": 0}, "must be from 1 to"),
        ("operator.add", {"name": "x", "role": "viewer", "days": 99999}, "must be from 1 to"),
        ("access.revoke", {"kind": "coordinator", "name": "x"}, "kind"),
        ("access.revoke", {"kind": "robot", "name": "arm3"}, "there is no robot `arm3`"),
    ],
)
async def test_wrong_requests_about_access_are_refused(shared, method, params, words):
    async with admin(shared) as one:
        with pytest.raises(RefusedError, match=words):
            await one.call(method, **params)
