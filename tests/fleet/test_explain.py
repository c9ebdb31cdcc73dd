"""`dorafleet explain`: the machine of every node, and why; mistakes at their places."""

import json

import pytest

from dorafleet.cli.main import run_command

CLUSTER = """\
coordinator: {addr: 10.0.0.1}
machines:
  - id: arm1
    host: 10.0.0.11
    labels: {zone: hall, gripper: "2"}
    capacity: {cpu: 4, memory: 8GB, gpu: 0, devices: [/dev/video0]}
  - id: arm2
    host: 10.0.0.12
    labels: {zone: hall}
    capacity: {cpu: 4, memory: 8GB, gpu: 1, devices: []}
  - id: cart
    host: 10.0.0.13
    labels: {zone: yard}
"""
FLOW = """\
nodes:
  - id: camera
    path: camera.py
    deploy:
      needs: {devices: [/dev/video0]}
  - id: detector
    path: detector.py
    deploy:
      labels: {zone: hall}
      needs: {gpu: 1}
  - id: logger
    path: logger.py
"""

GIVE = "its devices are not given: see `capacity.devices` in the cluster file"


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yml").write_text(CLUSTER)
    (tmp_path / "flow.yml").write_text(FLOW)
    return tmp_path


def explained(capsys, *arguments):
    """Return exit code, lines on stdout with single blanks, lines on stderr."""
    given = () if "--cluster" in arguments else ("--cluster", "cluster.yml")
    code = run_command(["explain", *arguments, *given])
    out, err = capsys.readouterr()
    return code, [" ".join(line.split()) for line in out.splitlines()], err.splitlines()


def test_every_node_has_its_machine_or_is_pending_with_the_reasons(files, capsys):
    assert explained(capsys, "flow.yml") == (
        0,
        [
            "Node Machine Why",
            "camera arm1 nothing else fits",
            "detector arm2 nothing else fits",
            "logger cart it has the fewest nodes",
        ],
        [],
    )
    (files / "flow.yml").write_text(FLOW.replace("gpu: 1", "gpu: 2"))
    code, out, err = explained(capsys, "flow.yml")
    assert code == 1
    assert out[2] == (
        "detector pending arm1: 2 GPUs needed, 0 free; arm2: 2 GPUs needed, 1 free; "
        "cart: its label `zone` is `yard`, not `hall`"
    )
    assert err == []


def test_for_one_node_each_machine_has_the_first_rule_that_rejects_it(files, capsys):
    assert explained(capsys, "flow.yml", "detector") == (
        0,
        [
            "Machine Rule Why",
            "arm1 gpu 1 GPU needed, 0 free",
            "arm2 chosen nothing else fits",
            "cart labels its label `zone` is `yard`, not `hall`",
        ],
        [],
    )


def test_json_has_all_of_it(files, capsys):
    assert run_command(["explain", "flow.yml", "camera", "--json", "--cluster", "cluster.yml"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "nodes": [
            {
                "node": "camera",
                "machine": "arm1",
                "machines": [
                    {"id": "arm1", "rule": None, "reason": "nothing else fits"},
                    {"id": "arm2", "rule": "devices", "reason": "it has no `/dev/video0`"},
                    {
                        "id": "cart",
                        "rule": "devices",
                        "reason": GIVE,
                    },
                ],
            }
        ],
        "problems": [],
    }


def test_names_that_do_not_exist_are_reported_at_their_places(files, capsys):
    (files / "flow.yml").write_text("""\
nodes:
  - id: a
    path: a.py
    deploy: {machine: arn1, avoid: {machines: [bot7], nodes: [bb, a]}}
  - id: b
    path: b.py
    deploy:
      labels: {griper: "2", zone: yrad, gripper: "3"}
  - id: c
    path: c.py
    deploy: {labels: {zone: yard, gripper: "2"}}
""")
    code, out, err = explained(capsys, "flow.yml")
    assert code == 1
    assert [line.split()[:2] for line in out[1:]] == [[n, "pending"] for n in "abc"]
    expected = [
        "4:14: nodes[0].deploy.machine: there is no machine `arn1` (did you mean `arm1`?)",
        "4:48: nodes[0].deploy.avoid.machines[0]: there is no machine `bot7` (known here: arm1,",
        "4:63: nodes[0].deploy.avoid.nodes[0]: there is no node `bb` (did you mean `b`?)",
        "4:67: nodes[0].deploy.avoid.nodes[1]: a node cannot avoid itself (remove it)",
        "8:16: nodes[1].deploy.labels.griper: no machine has a label `griper` (did you mean `grip",
        "8:29: nodes[1].deploy.labels.zone: no machine has the label `zone` with `yrad` (did you",
        "8:41: nodes[1].deploy.labels.gripper: no machine has the label `gripper` with `3` (there",
        "11:14: nodes[2].deploy.labels: each of these labels is on some machine, but no machine",
    ]
    assert [line[: len(start) + 16] for line, start in zip(err, expected, strict=True)] == [
        f"error: flow.yml:{start}" for start in expected
    ]


def test_a_node_without_deploy_has_that_of_the_dataflow(files, capsys):
    (files / "flow.yml").write_text(
        "nodes: [{id: a, path: a.py}, {id: b, path: b.py, deploy: {machine: arm1}}]\n"
        "deploy: {machine: cart}\n"
    )
    _, out, _ = explained(capsys, "flow.yml")
    assert [line.split()[:2] for line in out[1:]] == [["a", "cart"], ["b", "arm1"]]
    (files / "flow.yml").write_text("nodes: [{id: a, path: a.py}]\ndeploy: {machine: card}\n")
    _, _, err = explained(capsys, "flow.yml")
    assert err == [
        "error: flow.yml:2:10: deploy.machine: there is no machine `card` (did you mean `cart`?)"
    ]


def test_the_nodes_of_a_module_have_its_deploy_and_are_avoided_by_its_name(files, capsys):
    (files / "pair.yml").write_text(
        "module: {name: pair}\nnodes: [{id: x, path: x.py}, {id: y, path: y.py}]\n"
    )
    (files / "flow.yml").write_text("""\
nodes:
  - {id: eyes, module: pair.yml, deploy: {machine: arm1}}
  - {id: a, path: a.py, deploy: {avoid: {nodes: [eyes]}, labels: {zone: hall}}}
""")
    code, out, err = explained(capsys, "flow.yml")
    assert (code, err) == (0, [])
    assert [line.split()[:2] for line in out[1:]] == [
        ["eyes.x", "arm1"],
        ["eyes.y", "arm1"],
        ["a", "arm2"],
    ]


def test_the_mistakes_of_both_files_are_reported_at_once(files, capsys):
    (files / "flow.yml").write_text("nodes: [{id: a, pth: a.py}]\n")
    (files / "cluster.yml").write_text(CLUSTER.replace("cpu: 4", "cpu: many"))
    code, out, err = explained(capsys, "flow.yml")
    assert (code, out) == (1, [])
    assert [line.split()[1].split(":")[0] for line in err] == ["flow.yml", *["cluster.yml"] * 2]
    assert "machines[0].capacity.cpu: must be a number from 0 to 10000, not `many`" in err[1]


def test_wrong_usage_is_reported_as_such(files, capsys):
    code, _, err = explained(capsys, "flow.yml", "detectr")
    assert code == 2
    assert "no node `detectr` in flow.yml; did you mean `detector`?" in err[0]
    code, _, err = explained(capsys, "flow.yml", "--cluster", "absent.yml")
    assert code == 1
    assert err[0].startswith("error: absent.yml: ")
