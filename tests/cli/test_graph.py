"""`dora graph` and `dora expand`: what they write, and where."""

import os
import stat

import pytest

from dorad.dataflow.load import load
from tests.cli.dora import dora
from tests.harness.commands import fails, succeeds

FLOW = """\
nodes:
  - id: camera
    path: dynamic
    env: {SPEED: $SPEED}
    outputs: [image]
  - id: viewer
    path: dynamic
    inputs: {image: camera/image}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "robot.yml").write_text(FLOW)
    return tmp_path


SPEED = {"SPEED": "3"}


def test_graph_writes_a_page_named_after_the_file_into_the_current_folder(folder):
    result = dora("graph", "flows/robot.yml", cwd=folder, env=SPEED)
    assert result.stdout == "wrote robot-graph.html\n"
    assert (folder / "robot-graph.html").read_text().startswith("<!doctype html>")


def test_graph_writes_to_the_given_path(folder):
    dora("graph", "flows/robot.yml", "-o", "flows/g.html", cwd=folder, env=SPEED)
    assert (folder / "flows" / "g.html").exists()


def test_graph_prints_mermaid(folder):
    result = dora("graph", "flows/robot.yml", "--mermaid", cwd=folder, env=SPEED)
    assert result.stdout.startswith("flowchart TB\n")
    assert list(folder.glob("*.html")) == []


def test_graph_that_cannot_be_written_is_one_line(folder):
    result = dora("graph", "flows/robot.yml", "-o", "no/such/g.html", cwd=folder, env=SPEED)
    assert result.returncode == 1
    assert result.stderr == "error: cannot write no/such/g.html: No such file or directory\n"


def test_graph_opens_the_page_in_the_browser(folder):
    browser = folder / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > opened\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    env = {**SPEED, "BROWSER": f"{browser} %s", "PATH": os.environ["PATH"]}
    succeeds(dora("graph", "flows/robot.yml", "--open", cwd=folder, env=env))
    assert (folder / "opened").read_text() == f"{(folder / 'robot-graph.html').as_uri()}\n"


def test_graph_does_not_open_mermaid(folder):
    result = dora("graph", "flows/robot.yml", "--mermaid", "--open", cwd=folder, env=SPEED)
    assert result.returncode == 2


def test_expand_prints_a_dataflow_with_env_filled_in(folder):
    out = succeeds(dora("expand", "flows/robot.yml", cwd=folder, env=SPEED))
    flat = folder / "flat.yml"
    flat.write_text(out)
    assert load(flat, environ={}).node("camera").env == {"SPEED": "3"}


def test_expand_names_the_unset_variable(folder):
    text = FLOW.replace("$SPEED", "$NOT_SET_ANYWHERE")
    (folder / "flows" / "robot.yml").write_text(text)
    result = dora("expand", "flows/robot.yml", cwd=folder)
    assert result.returncode == 1
    assert result.stderr.startswith("error: flows/robot.yml:4:")
    assert "NOT_SET_ANYWHERE" in result.stderr


MODULE = """\
module: {name: part, inputs: [image], inputs_optional: [light], outputs: [seen]}
nodes:
  - {id: look, path: dynamic, inputs: {image: _mod/image, light: _mod/light}, outputs: [seen]}
"""


def test_expand_prints_the_nodes_of_modules(folder):
    (folder / "flows" / "part.yml").write_text(MODULE)
    with (folder / "flows" / "robot.yml").open("a") as file:
        file.write("  - {id: eye, module: part.yml, inputs: {image: camera/image}}\n")
    out = succeeds(dora("expand", "flows/robot.yml", cwd=folder, env=SPEED))
    (folder / "flows" / "part.yml").unlink()
    flat = folder / "flat.yml"
    flat.write_text(out)
    ids = [node.id for node in load(flat, environ={}).nodes]
    assert ids == ["camera", "viewer", "eye.look"]


def test_expand_checks_a_module_without_a_dataflow(folder):
    (folder / "flows" / "part.yml").write_text(MODULE)
    out = succeeds(dora("expand", "--module", "flows/part.yml", cwd=folder))
    assert out == (
        "flows/part.yml: ok, module `part`; 1 node; inputs: image, light?; outputs: seen\n"
    )


def test_expand_reports_all_errors_of_a_module(folder):
    text = MODULE.replace("light: _mod/", "light: mod/").replace(
        "image: _mod/image", "image: _mod/im"
    )
    (folder / "flows" / "part.yml").write_text(text)
    result = dora("expand", "--module", "flows/part.yml", cwd=folder)
    assert result.returncode == 1
    image, light = result.stderr.splitlines()
    assert image.startswith("error: flows/part.yml:3:47: nodes[0].inputs.image: the module has no")
    assert light.startswith("error: flows/part.yml:3:63: nodes[0].inputs.light: there is no node")


def test_expanding_a_dataflow_as_a_module_names_the_missing_key(folder):
    fails(dora("expand", "--module", "flows/robot.yml", cwd=folder, env=SPEED), 1, "needs `module`")
