"""Links between robots over Zenoh with certificates of the fleet: who gets one, and when."""

import json
import socket
import subprocess
import sys
import time

import pytest

from dorad.agent.keys import issuer_of
from dorad.control.tls import Identity
from dorafleet.ca.authority import open_authority
from dorafleet.ca.handover import make_successor

DAY = 86400.0
ONE, TWO = Identity("robot", "arm1"), Identity("robot", "arm2")
ANN = Identity("operator", "ann", "admin")


def linked(authority, *identities):
    """Return who has a link to the first of these."""
    sessions = {}
    for identity in identities:
        pair = authority.issue_pair(identity)
        ca = authority.certificate
        if identity.kind == "robot":
            ca = issuer_of(pair.issued.chain, ca)
        sessions[identity.name] = {"ca": ca, "chain": pair.issued.chain, "key": pair.key}
    return linked_sessions(sessions)


def linked_sessions(sessions):
    """Return who has a link to the first of these."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fleet.ca.linked"],
        input=json.dumps({"port": port, "sessions": sessions}),
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("years", [-55, 80])
def test_robots_have_links_whatever_their_clocks_say(tmp_path, monkeypatch, years):
    """The clock of the authority is so many years ahead of that of the robots."""
    now = max(time.time() + years * 365 * DAY, 0)
    with monkeypatch.context() as patch:
        patch.setattr("dorafleet.ca.authority.time.time", lambda: now)
        assert linked(open_authority(tmp_path / "ca"), ONE, TWO) == ["arm2"]


def test_an_operator_has_no_link_to_a_robot(tmp_path):
    assert linked(open_authority(tmp_path / "ca"), ONE, ANN, TWO) == ["arm2"]


def test_during_a_hand_over_robots_with_certificates_of_either_authority_have_links(tmp_path):
    """arm1 has an old certificate and arm2 a new one; both trust both. Others trust only one."""
    old = open_authority(tmp_path / "ca")
    made = make_successor(tmp_path / "ca", tmp_path / "ca", 30)
    new = open_authority(tmp_path / "ca" / made[:16])
    both = old.issuer + new.issuer

    def session(name, signer, trusted):
        pair = signer.issue_pair(Identity("robot", name))
        return {"ca": trusted, "chain": pair.issued.chain, "key": pair.key}

    sessions = {
        "arm1": session("arm1", old, both),
        "not yet certified": session("arm3", old, both),
        "new only": session("arm4", new, new.issuer),
        "arm2": session("arm2", new, both),
    }
    assert linked_sessions(sessions) == ["not yet certified", "arm2"]
    # Once arm1 trusts only the new authority, an old certificate gives no link.
    sessions = {
        "arm1": session("arm1", new, new.issuer),
        "old": session("arm3", old, both),
        "arm2": session("arm2", new, both),
    }
    assert linked_sessions(sessions) == ["arm2"]
