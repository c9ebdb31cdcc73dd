"""Who gets in over TLS, what they may do there, and whom a revocation ends: with real sockets."""

from __future__ import annotations

import asyncio
import json
import ssl

import pytest
from websockets.exceptions import InvalidStatus, WebSocketException

from dorad.control.messages import METHODS as DORA_METHODS
from dorad.control.tls import Identity, check_coordinator, client_context
from dorafleet.ca.authority import open_authority
from dorafleet.coordinator.messages import METHODS
from dorafleet.coordinator.roles import ROLES, may_call
from tests.fleet.ca.keys import csr_of, key_pem, new_key
from tests.fleet.coordinator.running import (
    RefusedError,
    client,
    connected,
    coordinator,
)


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


# -- roles -----------------------------------------------------------------------------------------


def test_every_method_has_a_role():
    assert ROLES.keys() == METHODS.keys() | DORA_METHODS.keys()


def test_a_higher_role_may_do_what_a_lower_one_may():
    for method in [*ROLES, "no.such.method"]:
        allowed = [may_call(role, method) for role in ("viewer", "operator", "admin")]
        assert allowed == sorted(allowed)
        assert allowed[-1]
        assert not may_call("robot", method)
        assert may_call("enrolling", method) == (method == "enrol.sign")
    assert not may_call("operator", "no.such.method")


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
            with pytest.raises(RefusedError, match="used already"):
                await robot.call("enrol.sign", robot="arm1", csr=csr_of(key))
        assert found["authority"] == made["authority"]
        assert "used already" in await refusal(process, **bearer)
        tls = holding(tmp_path / "robot", key, found["chain"], found["authority"])
        async with connected(process, tls, "/agent"):
            pass


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


async def test_without_certificate_or_token_nobody_gets_in(shared):
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
