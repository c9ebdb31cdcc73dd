"""`dora graph` and `dora expand`: what they write, and where."""

import os
import stat

import pytest

from dorad.dataflow.load import load
from tests.cli.dora import dora

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


def test_graph_writes_where_it_is_told(folder):
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
    result = dora("graph", "flows/robot.yml", "--open", cwd=folder, env=env)
    assert result.returncode == 0
    assert (folder / "opened").read_text() == f"{(folder / 'robot-graph.html').as_uri()}\n"


def test_graph_does_not_open_mermaid(folder):
    result = dora("graph", "flows/robot.yml", "--mermaid", "--open", cwd=folder, env=SPEED)
    assert result.returncode == 2


def test_expand_prints_a_dataflow_with_env_filled_in(folder):
    result = dora("expand", "flows/robot.yml", cwd=folder, env=SPEED)
    assert result.returncode == 0
    flat = folder / "flat.yml"
    flat.write_text(result.stdout)
    assert load(flat, environ={}).node("camera").env == {"SPEED": "3"}


def test_expand_names_the_variable_that_is_not_set(folder):
    text = FLOW.replace("$SPEED", "$NOT_SET_ANYWHERE")
    (folder / "flows" / "robot.yml").write_text(text)
    result = dora("expand", "flows/robot.yml", cwd=folder)
    assert result.returncode == 1
    assert result.stderr.startswith("error: flows/robot.yml:4:")
    assert "NOT_SET_ANYWHERE" in result.stderr
