"""Enrolment over SSH, as commands: a key of the robot's own, and what is refused."""

import json
import shutil
import stat

import msgspec
import pytest

from dorad.agent.identity import Enrolment, address_of
from dorad.agent.identitystore import IdentityStore
from dorad.control.errors import ControlError
from dorad.control.tls import Identity
from dorafleet.ca.authority import key_digest, open_authority
from tests.agent.fleet import Agent
from tests.harness.commands import fails, succeeds


@pytest.fixture
def authority(folder):
    return open_authority(folder / "ca")


@pytest.fixture
def agent(folder):
    return Agent(folder, folder / "dorad.sock")


def answer(signer, csr, *, robot="arm1", name="arm1", **more):
    issued = signer.issue(csr, Identity("robot", name))
    content = {
        "robot": robot,
        "coordinators": ["192.0.2.1", "[2001:db8::1]:7000"],
        "chain": issued.chain,
        "authority": signer.certificate,
    }
    return json.dumps(content | more)


def asked(agent, *words):
    out = succeeds(agent.command("enrol", *words))
    return json.loads(out)["csr"]


def refused(agent, stdin, *words):
    done = agent.command("certify", *words, stdin=stdin)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_key_that_waits_is_used_again_but_never_one_that_is_in_use(folder, authority):
    store = IdentityStore(folder)
    first = store.request("arm1")
    assert key_digest(store.request("arm1", same_key=True)) == key_digest(first)
    csr = store.request("arm1")
    assert key_digest(csr) != key_digest(first)
    store.enrol(msgspec.json.decode(answer(authority, csr), type=Enrolment))
    # As a kill leaves it.
    shutil.copytree(folder / "identity", folder / "pending")
    again = store.request("arm1", replace=True, same_key=True)
    assert key_digest(again) != key_digest(csr)


def test_a_robot_is_enrolled_and_its_key_stays_secret(agent, authority):
    csr = asked(agent, "arm1")
    assert "PRIVATE" not in csr
    succeeds(agent.command("certify", stdin=answer(authority, csr)))
    found = json.loads((agent.folder / "identity/agent.json").read_text())
    assert found == {"robot": "arm1", "coordinators": ["192.0.2.1", "[2001:db8::1]:7000"]}
    assert stat.S_IMODE((agent.folder / "identity/key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(agent.folder.stat().st_mode) == 0o700
    assert not (agent.folder / "pending").exists()


def test_a_robot_is_not_enrolled_twice_unless_it_is_asked_for(agent, authority):
    agent.enrol(authority, 6013)
    fails(agent.command("enrol", "arm1"), 1, "enrolled already (enrol it with `--replace`")
    other = agent.command("enrol", "arm2")
    assert "enrolled already as arm1" in other.stderr
    before = (agent.folder / "identity/key.pem").read_text()
    agent.enrol(authority, 6013, robot="arm2", replace=True)
    assert json.loads((agent.folder / "identity/agent.json").read_text())["robot"] == "arm2"
    assert (agent.folder / "identity/key.pem").read_text() != before


def test_a_request_alone_changes_nothing(agent, authority):
    agent.enrol(authority, 6013)
    before = sorted(path.name for path in (agent.folder / "identity").iterdir())
    chain = (agent.folder / "identity/chain.pem").read_text()
    asked(agent, "arm1", "--replace")
    assert (agent.folder / "identity/chain.pem").read_text() == chain
    assert sorted(path.name for path in (agent.folder / "identity").iterdir()) == before


def test_a_certificate_of_another_robot_key_or_authority_is_refused(agent, authority, folder):
    other = open_authority(folder / "other")
    first = asked(agent, "arm1")
    csr = asked(agent, "arm1")
    assert "for another key" in refused(agent, answer(authority, first))
    assert "for dorad:robot/arm2, not for robot arm1" in refused(
        agent, answer(authority, csr, name="arm2")
    )
    assert "has not signed it" in refused(
        agent, answer(authority, csr, authority=other.certificate)
    )
    assert not (agent.folder / "identity").exists()
    succeeds(agent.command("certify", stdin=answer(authority, csr)))


@pytest.mark.parametrize(
    ("stdin", "why"),
    [
        ("", "not the answer"),
        ("[]", "not the answer"),
        ('{"robot": "arm1"}', "missing required field"),
        ("\x00" * 2_000_000, "more than"),
    ],
)
def test_nonsense_is_refused_in_one_line(agent, stdin, why):
    message = refused(agent, stdin)
    assert why in message
    assert len(message.splitlines()) == 1


def test_wrong_fields_are_refused(agent, authority):
    csr = asked(agent, "arm1")
    for wrong in (
        {"robot": "../etc"},
        {"robot": ""},
        {"coordinators": []},
        {"coordinators": ["base:99999"]},
        {"coordinators": ["base/agent"]},
        {"coordinators": ["user@base"]},
        {"coordinators": ["base"] * 17},
        {"chain": "nonsense"},
        {"chain": "x" * 100_000},
        {"authority": ""},
    ):
        refused(agent, answer(authority, csr, **wrong))
    assert not (agent.folder / "identity").exists()


def test_there_is_nothing_to_certify_without_a_request(agent, authority, folder):
    other = Agent(folder / "other", folder / "dorad.sock")
    other.folder.parent.mkdir()
    csr = asked(other, "arm1")
    assert "no key that waits" in refused(agent, answer(authority, csr))


@pytest.mark.parametrize("words", [["run"], [], ["leave"]])
def test_a_robot_that_is_not_enrolled_says_how_to_do_it(agent, words):
    fails(agent.command(*words), 1, "not enrolled (run `dorafleet enrol`")


def test_a_damaged_identity_is_reported(agent, authority):
    agent.enrol(authority, 6013)
    (agent.folder / "identity/agent.json").write_text('{"robot": 5}')
    fails(agent.command("run"), 1, "agent.json is damaged")


def test_the_status_of_an_agent_that_does_not_run_is_an_error(agent, authority):
    agent.enrol(authority, 6013)
    fails(agent.command("status"), 1, "no dorad-agent runs")


def test_wrong_usage_has_its_own_exit_code(agent):
    for words in (["enrol"], ["enrol", "a", "b"], ["nonsense"], ["--nonsense"]):
        assert agent.command(*words).returncode == 2


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("base", ("base", 6013)),
        ("192.0.2.1:7000", ("192.0.2.1", 7000)),
        ("[2001:db8::1]", ("2001:db8::1", 6013)),
        ("[fe80::1%eth0]:1", ("fe80::1%eth0", 1)),
    ],
)
def test_addresses(text, address):
    assert address_of(text) == address


@pytest.mark.parametrize(
    "text", ["", ":6013", "base:", "base:0", "base:65536", "2001:db8::1", "a b"]
)
def test_what_is_no_address(text):
    with pytest.raises(ControlError, match="not the address of a coordinator"):
        address_of(text)
