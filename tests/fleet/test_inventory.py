"""cluster.yml: every key, its default, and the position of every problem."""

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from dorad.dataflow.errors import DataflowError
from dorad.dataflow.settings import Amounts
from dorafleet.inventory.load import load, parse
from dorafleet.inventory.model import Coordinator, Machine

PATH = Path("cluster.yml")
HEAD = "coordinator: {addr: 10.0.0.1}\n"


def read(text):
    return parse(text, path=PATH)


def problems(text):
    with pytest.raises(DataflowError) as caught:
        read(text)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_cluster_file_that_is_no_file_is_refused_at_once(kind, tmp_path):
    file = tmp_path / "cluster.yml"
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")
    with pytest.raises(DataflowError) as caught:
        load(file)
    assert f"{file}: is not a regular file (is it " in str(caught.value)


def test_missing_keys_have_their_defaults():
    cluster = read(HEAD + "machines:\n  - {id: arm1, host: arm1.local}\n")
    assert cluster.coordinator == Coordinator(ip_address("10.0.0.1"), 6013)
    assert cluster.machines == (Machine("arm1", "arm1.local"),)
    (machine,) = cluster.machines
    assert (machine.user, machine.port) == (None, None)
    assert (machine.daemon_port, machine.zenoh_port, machine.zenoh_addr) == (53291, 5456, None)


def test_every_key_is_read():
    cluster = read("""
coordinator:
  addr: "fd00::1"
  port: 7000
machines:
  - id: arm1
    host: 10.0.0.2
    user: robot
    port: 2222
    daemon_port: 4000
    labels: {zone: hall-2, version: "1.10"}
    zenoh_addr: 10.1.0.2
    zenoh_port: 4001
    capacity: {cpu: 3.5, memory: 8GB, gpu: 1, devices: [/dev/video0]}
""")
    assert cluster.coordinator == Coordinator(ip_address("fd00::1"), 7000)
    assert cluster.machines[0] == Machine(
        "arm1",
        "10.0.0.2",
        "robot",
        2222,
        4000,
        {"zone": "hall-2", "version": "1.10"},
        ip_address("10.1.0.2"),
        4001,
        Amounts(3.5, 8 << 30, 1, ("/dev/video0",)),
    )


def test_the_host_may_name_the_user_as_for_ssh():
    (machine,) = read(HEAD + "machines: [{id: a, host: pi@10.0.0.2}]").machines
    assert (machine.user, machine.host) == ("pi", "10.0.0.2")
    assert machine.zenoh_addr == ip_address("10.0.0.2")


def test_all_problems_are_reported_in_order_with_the_nearest_word():
    found = problems("""\
coordinator:
  addr: fleet.local
  prt: 6013
zenoh_peer: tcp/1.2.3.4:7447
machines:
  - id: arm1
    hots: 10.0.0.1
  - id: arm1
    host: pi@10.0.0.1
    user: root
    port: 70000
    labels: {gpu: true, zone: "a b"}
    zenoh_port: 5456
  - id: -x
    host: "-oProxyCommand=x"
label: 3
""")
    places = [problem.split(" ")[0] for problem in found]
    assert places == [
        "cluster.yml:2:9:",
        "cluster.yml:3:3:",
        "cluster.yml:7:5:",
        "cluster.yml:8:9:",
        "cluster.yml:10:11:",
        "cluster.yml:11:11:",
        "cluster.yml:12:19:",
        "cluster.yml:12:31:",
        "cluster.yml:13:5:",
        "cluster.yml:14:9:",
        "cluster.yml:15:11:",
        "cluster.yml:16:1:",
    ]
    assert "did you mean `port`?" in found[1]
    assert "did you mean `host`?" in found[2]
    assert 'write "true"' in found[6]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty (a cluster starts with"),
        ("- 1", "a cluster is a mapping"),
        ("machines: [{id: a, host: b}]", "needs `coordinator`"),
        ("coordinator: {port: 1}\nmachines: [{id: a, host: b}]", "needs `addr`"),
        (HEAD, "needs `machines`"),
        (HEAD + "machines: []", "needs at least one machine"),
        (HEAD + "machines: {a: b}", "must be a list"),
        (HEAD + "machines: [arm1]", "must be a mapping with `id` and `host`"),
        (HEAD + "machines: [{host: b}]", "needs `id`"),
        (HEAD + "machines: [{id: a}]", "needs `host`"),
        (HEAD + "machines: [{id: a b, host: b}]", "` ` is not allowed in a machine's id"),
        (HEAD + "machines: [{id: a, host: b c}]", "a host must not contain blanks"),
        (HEAD + "machines: [{id: a, host: b, daemon_port: 0}]", "from 1 to 65535"),
        (HEAD + "machines: [{id: a, host: b, zenoh_addr: c}]", "must be an IP address"),
        (
            HEAD + "machines: [{id: a, host: b, zenoh_addr: 0.0.0.0}]",
            "is not the address of a machine",
        ),
        (HEAD + "machines: [{id: a, host: b, labels: {n: 1.10}}]", 'write "1.10"'),
        (HEAD + "machines: [{id: a, host: b, labels: {'x y': z}}]", "not allowed in a label"),
        (
            HEAD + f"machines: [{{id: a, host: b, labels: {{x: {'y' * 101}}}}}]",
            "a label has at most 100 characters, not 101",
        ),
        (HEAD + "zenoh_peer: 'a b'\nmachines: [{id: a, host: b}]", "not allowed in an endpoint"),
        (HEAD + "zenoh_peer: tls/a\nmachines: [{id: a, host: b}]", "`tls/a` is not an endpoint"),
        (HEAD + "zenoh_peer: 10.0.0.1:7447\nmachines: [{id: a, host: b}]", "is not an endpoint"),
        (HEAD + "zenoh_peer: tls/a:65536\nmachines: [{id: a, host: b}]", "is not an endpoint"),
        (HEAD + "machine: [{id: a, host: b}]", "did you mean `machines`?"),
    ],
)
def test_a_problem_is_reported(text, expected):
    (found,) = problems(text)
    assert expected in found
    assert found.startswith("cluster.yml:")


def test_only_unused_keys_are_warned_about():
    cluster = read(HEAD + "machines: [{id: a, host: b, daemon_port: 5, zenoh_port: 6}]")
    assert [warning.key for warning in cluster.warnings] == ["machines[0].daemon_port"]
    cluster = read(HEAD + "zenoh_peer: tls/10.0.0.1:7447\nmachines: [{id: a, host: b}]")
    assert cluster.warnings == ()


def test_a_router_without_tls_is_warned_about():
    cluster = read(HEAD + "zenoh_peer: tcp/10.0.0.1:7447\nmachines: [{id: a, host: b}]")
    assert cluster.zenoh_peer == "tcp/10.0.0.1:7447"
    (warning,) = cluster.warnings
    assert "no link can use `tcp/10.0.0.1:7447`" in str(warning)
    assert warning.line == 2


def test_two_machines_with_the_same_zenoh_address_are_warned_about():
    cluster = read(HEAD + "machines:\n - {id: a, host: 10.0.0.2}\n - {id: b, host: 10.0.0.2}\n")
    (warning,) = cluster.warnings
    assert "has the Zenoh address of `a`" in str(warning)
    assert warning.line == 4


def test_a_missing_file_is_one_problem(tmp_path):
    with pytest.raises(DataflowError, match="no such file"):
        load(tmp_path / "none.yml")
