"""Machines with certificates of one fleet: each may only speak, and hear, under its own name."""

import asyncio
import json
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dorad.link.access import MAX_COMMON_NAME, router_rules, session_rules
from tests.daemon.clients import Program
from tests.link.certificates import Authority
from tests.link.links import DEADLINE_S, RECEIVER, SENDER, Connected, Pair, lines, pair

ROUNDS = 20


async def test_a_robot_cannot_pose_as_another_one_with_a_link_process(tmp_path: Path) -> None:
    fleet = Authority(tmp_path / "fleet")
    async with pair(scheme="tls") as machines:
        alpha = machines.start_alpha(tls=fleet.issue("alpha"))
        impostor = machines.start_beta(tls=fleet.issue("mallory"))
        await impostor.until(lambda: impostor.peer("alpha").get("state") == "absent")
        await alpha.until(alpha.status)
        assert alpha.peer("beta")["state"] == "absent"
        await impostor.kill()
        machines.links.remove(impostor)
        beta = machines.start_beta(tls=fleet.issue("beta"))
        await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
        await beta.until(lambda: beta.peer("alpha").get("state") == "up")


@asynccontextmanager
async def intruder(machines: Pair, files: dict[str, str]) -> AsyncIterator[Process]:
    """A robot with these certificates that poses as beta on alpha's link."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.link.intruder", machines.address),
        *("test-flow", "alpha", "beta"),
        *(files[name] for name in ("ca", "certificate", "key")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            assert await process.stdout.readline() == b"ready\n"
            yield process
            process.stdin.close()
            assert json.loads(await process.stdout.readline()) == [], "it was sent messages"
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def pose(process: Process) -> bool:
    """Let the intruder send what beta would send; return True if it is connected."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    return await process.stdout.readline() == b"sent 1\n"


async def test_a_robot_of_the_dataflow_can_neither_speak_nor_listen_as_another_one(
    tmp_path: Path,
) -> None:
    """It knows all keys, and has a connection to alpha."""
    out = tmp_path / "b"
    fleet = Authority(tmp_path / "fleet")
    channel = {"name": "a/out", "machine": "beta", "input": "x", "reliable": False}
    async with pair(scheme="tls") as machines:
        outgoing = [channel, channel | {"machine": "gamma"}]
        alpha = machines.start_alpha(tls=fleet.issue("alpha"), outgoing=outgoing)
        beta = machines.start_beta(tls=fleet.issue("beta"))
        await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
        await beta.until(lambda: beta.peer("alpha").get("state") == "up")
        async with (
            intruder(machines, fleet.issue("gamma")) as gamma,
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, ROUNDS, 80, 0.05, tmp_path / "a"),
        ):
            await beta.until(lambda: len(lines(out)) > 0)
            for _ in range(ROUNDS):
                assert await pose(gamma), "it is connected"
            await beta.until(lambda: len(lines(out)) == ROUNDS)
        assert alpha.peer("beta") == {**alpha.peer("beta"), "state": "up", "reason": ""}
        assert alpha.status()["outgoing"][0]["lost"] == 0
        assert lines(out) == [f"{n} 10 int64 True frame" for n in range(ROUNDS)]


async def test_a_robot_that_is_not_in_the_dataflow_can_neither_speak_nor_listen(
    tmp_path: Path,
) -> None:
    """Its certificate is valid, so Zenoh would let it in; its connections are closed."""
    out = tmp_path / "b"
    fleet = Authority(tmp_path / "fleet")
    async with pair(scheme="tls") as machines:
        alpha = machines.start_alpha(tls=fleet.issue("alpha"))
        beta = machines.start_beta(tls=fleet.issue("beta"))
        await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
        await beta.until(lambda: beta.peer("alpha").get("state") == "up")
        async with (
            intruder(machines, fleet.issue("mallory")) as mallory,
            Connected(machines.beta, "b", RECEIVER, out),
            Program(machines.alpha, "a", SENDER, ROUNDS, 80, 0.05, tmp_path / "a"),
        ):
            for _ in range(ROUNDS):
                await pose(mallory)
            await beta.until(lambda: len(lines(out)) == ROUNDS)
            why = b"of machines that are not in the dataflow"
            await alpha.until(lambda: why in alpha.errors)
        assert alpha.peer("beta") == {**alpha.peer("beta"), "state": "up", "reason": ""}
        assert alpha.status()["outgoing"][0]["lost"] == 0
        assert lines(out) == [f"{n} 10 int64 True frame" for n in range(ROUNDS)]


async def test_a_machine_that_joins_the_dataflow_is_let_in(tmp_path: Path) -> None:
    """The session knows its peers' names, so a new one needs a new session."""
    fleet = Authority(tmp_path / "fleet")
    async with pair(scheme="tls") as machines:
        alpha = machines.start_alpha(outgoing=[], tls=fleet.issue("alpha"))
        beta = machines.start_beta(tls=fleet.issue("beta"))
        await beta.until(lambda: beta.peer("alpha").get("state") == "absent")
        alpha.configure(
            outgoing=[{"name": "a/out", "machine": "beta", "input": "x", "reliable": False}]
        )
        await alpha.until(lambda: alpha.peer("beta").get("state") == "up")
        await beta.until(lambda: beta.peer("alpha").get("state") == "up")


@pytest.mark.parametrize("peer", ["beta", "x" * 70])
def test_the_rules_of_a_peer_name_its_certificate(peer: str) -> None:
    rules = session_rules("flow", "alpha", [peer])
    assert rules["default_permission"] == "deny"
    assert rules["subjects"] == [{"id": peer, "cert_common_names": [peer[:64]]}]
    spoken = [rule for rule in rules["rules"] if rule["messages"] == ["put", "liveliness_token"]]
    assert {rule["flows"][0]: rule["key_exprs"][0] for rule in spoken} == {
        "ingress": f"dorad/flow/to/alpha/{peer}/*",
        "egress": f"dorad/flow/to/{peer}/alpha/*",
    }


def allowed(rules: dict[str, Any]) -> dict[str, set[tuple[str, str, str]]]:
    """Return what the rules allow: by certificate, the flow, the message and the key."""
    assert (rules["enabled"], rules["default_permission"]) == (True, "deny")
    by_id = {each["id"]: each for each in rules["rules"]}
    assert len(by_id) == len(rules["rules"])
    assert {each["permission"] for each in by_id.values()} <= {"allow"}
    names = {each["id"]: each["cert_common_names"] for each in rules["subjects"]}
    allowed: dict[str, set[tuple[str, str, str]]] = {}
    for policy in rules["policies"]:
        (subject,) = policy["subjects"]
        (name,) = names[subject]
        for rule in (by_id[each] for each in policy["rules"]):
            allowed.setdefault(name, set()).update(
                (flow, message, key)
                for flow in rule["flows"]
                for message in rule["messages"]
                for key in rule["key_exprs"]
            )
    return allowed


ASKS = ("declare_subscriber", "declare_liveliness_subscriber", "liveliness_query")


def test_a_peer_may_send_what_is_its_own_and_get_what_is_sent_to_it() -> None:
    found = allowed(session_rules("flow", "me", ["one", "other"]))
    assert set(found) == {"one", "other"}
    root = "dorad/flow"
    its = {f"{root}/to/me/one/*", f"{root}/alive/one/*"}
    ours = {f"{root}/to/one/me/*", f"{root}/alive/me/*"}
    assert found["one"] == {
        *(("ingress", each, key) for each in ("put", "liveliness_token") for key in its),
        *(("egress", each, key) for each in ("put", "liveliness_token") for key in ours),
        *(("ingress", each, key) for each in ASKS for key in ours),
        *(("egress", each, key) for each in ASKS for key in its),
    }


def test_a_router_lets_each_machine_speak_under_its_own_name_and_all_ask() -> None:
    found = allowed(router_rules(["one", "x" * 80]))
    assert set(found) == {"one", "x" * MAX_COMMON_NAME}
    root = "dorad/*"
    says = {f"{root}/to/*/one/*", f"{root}/alive/one/*"}
    assert found["one"] == {
        *(("ingress", each, key) for each in ("put", "liveliness_token") for key in says),
        ("egress", "put", f"{root}/to/one/*/*"),
        *((flow, each, "dorad/**") for flow in ("ingress", "egress") for each in ASKS),
        ("egress", "liveliness_token", f"{root}/alive/**"),
    }
