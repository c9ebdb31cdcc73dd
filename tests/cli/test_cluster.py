"""`dora cluster` under the names of dora 1.x, with a program that shows what it gets."""

import os

import pytest

from dorad.cli.cluster import find_program
from tests.cli.dora import dora

DORAS_OWN = """\
coordinator:
  addr: 192.168.1.1
  port: 6013
machines:
  - id: robot
    host: 192.168.1.10
    user: ubuntu
    labels: {gpu: "true"}
"""


@pytest.fixture
def site(tmp_path):
    """A folder with a cluster.yml, and one with a `dorafleet` that prints its words."""
    (tmp_path / "cluster.yml").write_text(DORAS_OWN)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    program = bin_ / "dorafleet"
    program.write_text('#!/bin/sh\necho "$@"\necho "$DORA_COORDINATOR_ADDR" >&2\nexit 3\n')
    program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "passed_on"),
    [
        (["up", "cluster.yml"], "up cluster.yml"),
        (["up", "cluster.yml", "--accept-new"], "up cluster.yml --accept-new"),
        (["status"], "status"),
        (["status", "--json"], "status --json"),
        (["down"], "down"),
        (["install", "cluster.yml"], "enrol cluster.yml"),
        (["install", "cluster.yml", "d.deb"], "install cluster.yml d.deb"),
        (["uninstall", "cluster.yml"], "uninstall cluster.yml"),
        (
            ["upgrade", "cluster.yml", "d.deb", "--canary", "2"],
            "upgrade cluster.yml d.deb --canary 2",
        ),
        (["restart", "cluster.yml", "demo"], "restart cluster.yml demo"),
    ],
)
def test_each_command_becomes_one_of_dorafleet(site, words, passed_on):
    path = f"{site}/bin:{os.environ['PATH']}"
    result = dora("cluster", *words, cwd=site, env={"PATH": path})
    assert (result.stdout, result.returncode) == (f"{passed_on}\n", 3)


def test_the_coordinator_that_is_asked_for_is_passed_on(site):
    path = f"{site}/bin:{os.environ['PATH']}"
    words = ("cluster", "status", "--coordinator-addr", "10.0.0.1")
    assert dora(*words, cwd=site, env={"PATH": path}).stderr == "10.0.0.1\n"


def test_without_the_program_it_says_so(site):
    result = dora("cluster", "status", cwd=site, env={"PATH": str(site)})
    assert result.returncode == 1
    assert "needs the program dorafleet" in result.stderr
    assert "dorad[fleet]" in result.stderr


def test_the_program_beside_this_one_is_preferred(site, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_program(site / "bin") == str(site / "bin" / "dorafleet")
    assert find_program(site) is None


def test_what_is_wrong_is_a_usage_error(site):
    for words in (["up"], ["restart", "cluster.yml"], ["upgrade", "cluster.yml"], ["explode"]):
        assert dora("cluster", *words, cwd=site).returncode == 2
