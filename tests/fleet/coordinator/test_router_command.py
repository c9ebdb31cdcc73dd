"""`dorafleet router` against a running coordinator; `tests/link/test_router.py` uses the result."""

import json

import pytest
import zenoh

from dorafleet.cli.main import run_command
from dorafleet.cli.router import listening_at
from tests.fleet.coordinator.running import CLUSTER, coordinator

IDENTITY = "/var/lib/dorad-agent/identity"


def run(running, *words):
    return run_command([*words, "--state", str(running.folder), "--port", str(running.port)])


def test_the_configuration_has_a_rule_for_each_robot_that_is_not_revoked(tmp_path, capsys):
    file = f"zenoh_peer: tls/site.local:7448\n{CLUSTER}"
    with coordinator(tmp_path / "state", file=file) as running:
        assert run(running, "router") == 0
        printed = capsys.readouterr().out
        assert run(running, "revoke", "arm2") == 0
        capsys.readouterr()
        assert run(running, "router") == 0
        without_arm2 = json.loads(capsys.readouterr().out)
    found = zenoh.Config.from_json5(printed)
    assert json.loads(found.get_json("listen/endpoints")) == ["tls/0.0.0.0:7448"]
    tls = json.loads(found.get_json("transport/link/tls"))
    assert tls["enable_mtls"] is True
    assert tls["listen_certificate"] == f"{IDENTITY}/chain.pem"
    rules = json.loads(printed)["access_control"]
    assert rules["default_permission"] == "deny"
    assert [each["cert_common_names"] for each in rules["subjects"]] == [["arm1"], ["arm2"]]
    assert "arm1" in json.dumps(without_arm2)
    assert "arm2" not in json.dumps(without_arm2)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("", "the fleet has no router"),
        (
            "zenoh_peer: tcp/10.0.0.9:7447\n",
            "`zenoh_peer` is `tcp/10.0.0.9:7447`, and links have TLS",
        ),
    ],
)
def test_a_fleet_without_a_router_that_links_can_use_has_no_configuration(
    tmp_path, capsys, line, why
):
    with coordinator(tmp_path / "state", file=line + CLUSTER) as running:
        assert run(running, "router") == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert why in shown.err
    assert "zenoh_peer: tls/HOST:" in shown.err


@pytest.mark.parametrize(
    ("peer", "listening"),
    [
        ("tls/10.0.0.9:7447", "tls/0.0.0.0:7447"),
        ("tls/router.site:1", "tls/0.0.0.0:1"),
        ("tls/[fd00::9]:7447", "tls/[::]:7447"),
        ("tls/10.0.0.9:7447?rel=0#iface=eth0", "tls/0.0.0.0:7447"),
    ],
)
def test_a_router_listens_at_the_port_that_robots_connect_to(peer, listening):
    assert listening_at(peer) == listening
