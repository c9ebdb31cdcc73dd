"""Programs of a module are looked for beside its file, and nothing leads out of the project."""

import os
from pathlib import Path

import pytest

from dorad.dataflow.load import load
from dorad.dataflow.model import NodeKind

from .conftest import Project

FLOW = "nodes: [{id: m, module: mods/arm/m.yml}]"


def _module(path: str) -> str:
    return f"module: {{name: m}}\nnodes:\n- id: a\n  path: {path}\n"


@pytest.mark.parametrize(
    ("written", "flat"),
    [
        ("a.py", "mods/arm/a.py"),
        ("./a.py", "mods/arm/a.py"),
        ("bin/tool", "mods/arm/bin/tool"),
        ("../../top.py", "top.py"),
        ("../arm/a.py", "mods/arm/a.py"),
        ("there", "mods/arm/there"),
        ("python3", "python3"),
        ("/usr/bin/env", "/usr/bin/env"),
        ("$HOME/x.py", "$HOME/x.py"),
        ("dynamic", "dynamic"),
        ("https://example.org/x.py", "https://example.org/x.py"),
    ],
)
def test_a_path_starts_at_the_file_of_the_module(project: Project, written: str, flat: str) -> None:
    project.write("mods/arm/m.yml", _module(written))
    project.write("mods/arm/there", "")
    assert project.node(FLOW, "m.a").path == flat


def test_a_file_may_be_named_like_a_kind_of_node(project: Project) -> None:
    project.write("mods/arm/m.yml", _module("../../dynamic"))
    node = project.node(FLOW, "m.a")
    assert (node.kind, node.path) == (NodeKind.PATH, "./dynamic")


def test_a_path_in_a_clone_stays(project: Project) -> None:
    project.write("mods/arm/m.yml", _module("src/a.py\n  git: https://example.org/x"))
    assert project.node(FLOW, "m.a").path == "src/a.py"


def test_it_starts_at_the_dataflow_whatever_the_current_folder(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("mods/arm/m.yml", _module("a.py\n  restart: x"))
    project.write("flow.yml", FLOW)
    monkeypatch.chdir(project.folder.parent)
    with pytest.raises(
        Exception, match=r"^project/mods/arm/m.yml:5:3: .*`m` in project/flow.yml:1"
    ):
        load("project/flow.yml")
    project.write("mods/arm/m.yml", _module("a.py"))
    flow = load(Path("project/flow.yml"))
    assert flow.nodes[0].path == "mods/arm/a.py"
    assert flow.base_dir == project.folder


@pytest.mark.parametrize("path", ["../../../x.py", "../../..", "b/../../../../x"])
def test_a_program_outside(project: Project, path: str) -> None:
    project.write("mods/arm/m.yml", _module(path))
    assert project.error(FLOW) == (
        f"mods/arm/m.yml:4:9: nodes[0].path: `{path}` leaves the directory of the dataflow"
        " (write a relative path; used by `m` in flow.yml:1)"
    )


@pytest.mark.parametrize("key", ["python: ../../../x.py", "python: {source: ../../../x.py}"])
def test_an_operator_outside(project: Project, key: str) -> None:
    text = f"module: {{name: m}}\nnodes:\n- {{id: a, operator: {{{key}}}}}"
    project.write("mods/arm/m.yml", text)
    assert "leaves the directory of the dataflow" in project.error(FLOW)


@pytest.mark.parametrize("path", ["../m.yml", "x/../../m.yml", "/m.yml", "mods/../../m.yml"])
def test_a_module_outside(project: Project, path: str) -> None:
    assert project.error(f"nodes: [{{id: m, module: {path}}}]") == (
        f"flow.yml:1:25: nodes[0].module: `{path}` leaves the directory of the dataflow"
        " (write a relative path)"
    )


def test_a_module_beside_that_of_the_user(project: Project) -> None:
    project.write("mods/arm/m.yml", "module: {name: m}\nnodes: [{id: n, module: ../n.yml}]")
    project.write("mods/n.yml", _module("n.py"))
    assert project.node(FLOW, "m.n.a").path == "mods/n.py"


def test_a_module_beside_that_of_the_user_but_outside(project: Project) -> None:
    project.write("mods/arm/m.yml", "module: {name: m}\nnodes: [{id: n, module: ../../../n.yml}]")
    assert "mods/arm/m.yml:2:25: nodes[0].module: `../../../n.yml` leaves" in project.error(FLOW)


def test_links_that_lead_outside(project: Project) -> None:
    outside = project.folder.parent / "outside"
    outside.mkdir()
    (outside / "m.yml").write_text(_module("a.py"))
    (outside / "x.py").write_text("")
    (project.folder / "mods").symlink_to(outside)
    assert "`mods/m.yml` leaves the directory of the dataflow by a symbolic link (copy the" in (
        project.error("nodes: [{id: m, module: mods/m.yml}]")
    )
    (project.folder / "m.yml").symlink_to(outside / "m.yml")
    assert "by a symbolic link" in project.error("nodes: [{id: m, module: m.yml}]")
    (project.folder / "here.py").symlink_to(outside / "x.py")
    for path in ("here.py", "mods/x.py", "./mods/not-there-yet"):
        project.write("n.yml", _module(path))
        assert f"n.yml:4:9: nodes[0].path: `{path}` leaves the directory of the dataflow by a" in (
            project.error("nodes: [{id: m, module: n.yml}]")
        )


def test_links_that_stay(project: Project) -> None:
    project.write("real/arm/m.yml", _module("../x.py"))
    (project.folder / "mods").symlink_to("real")
    assert project.node(FLOW, "m.a").path == "real/x.py"


def test_a_link_to_nowhere(project: Project) -> None:
    (project.folder / "m.yml").symlink_to("m.yml")
    assert "there is no file `m.yml`" in project.error("nodes: [{id: m, module: m.yml}]")


def test_a_project_that_is_reached_by_a_link(project: Project, tmp_path: Path) -> None:
    project.write("mods/arm/m.yml", _module("a.py"))
    project.write("flow.yml", FLOW)
    (tmp_path / "link").symlink_to(project.folder)
    os.chdir(tmp_path)
    flow = load("link/flow.yml")
    assert flow.nodes[0].path == "mods/arm/a.py"
    assert flow.base_dir == tmp_path / "link"


def test_the_python_of_a_virtual_environment_may_be_a_link(project: Project) -> None:
    project.write("mods/arm/.venv/pyvenv.cfg", "")
    python = project.folder / "mods/arm/.venv/bin/python"
    python.parent.mkdir()
    python.symlink_to("/usr/bin/env")
    project.write("mods/arm/m.yml", _module(".venv/bin/python"))
    assert project.node(FLOW, "m.a").path == "mods/arm/.venv/bin/python"
