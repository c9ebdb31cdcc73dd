"""The plan of a build as data: commands, folders and environments."""

from pathlib import Path

import pytest

from dorad.cli.build_plan import BuildContext, BuildError, plan
from dorad.dataflow.load import parse
from dorad.launch.model import LaunchError

FLOW = """\
env: {LEVEL: dataflow, SHARED: dataflow}
nodes:
  - id: talker
    path: talker.py
    env: {LEVEL: node}
    build: |
      pip install -e talker

      make "two words" 'and three'
  - id: tool
    path: tool
    build: pip3 install tool
  - id: plain
    path: plain.py
"""


@pytest.fixture
def own(tmp_path):
    """A virtual environment that dora runs from."""
    folder = tmp_path / "own" / "bin"
    folder.mkdir(parents=True)
    return folder


def builds(tmp_path, own, *, uv=False, run_env=None, environ=None):
    dataflow = parse(FLOW, path=tmp_path / "flow.yml", environ={})
    inherited = {"PATH": "/usr/bin:/bin"} if environ is None else environ
    return plan(BuildContext(dataflow, inherited, run_env or {}, uv, own))


def test_only_nodes_with_commands_are_built_in_the_order_of_the_file(tmp_path, own):
    assert [build.node for build in builds(tmp_path, own)] == ["talker", "tool"]


def test_each_line_is_one_command_cut_into_words_without_a_shell(tmp_path, own):
    talker, _ = builds(tmp_path, own)
    assert talker.commands[1] == ("make", "two words", "and three")


@pytest.mark.parametrize("index", [0, 1])
def test_pip_is_that_of_the_python_that_runs_the_nodes(tmp_path, own, index):
    command = builds(tmp_path, own)[index].commands[0]
    assert command[:4] == (str(own / "python"), "-m", "pip", "install")


def test_an_active_environment_is_the_one_built_for(tmp_path, own):
    active = tmp_path / "active"
    (active / "bin").mkdir(parents=True)
    (active / "bin" / "python").touch()
    environ = {"PATH": "/usr/bin", "VIRTUAL_ENV": str(active)}
    talker, _ = builds(tmp_path, own, environ=environ)
    assert talker.commands[0][0] == str(active / "bin" / "python")


def test_commands_run_in_the_folder_of_the_dataflow(tmp_path, own):
    assert {build.cwd for build in builds(tmp_path, own)} == {tmp_path}


def test_env_of_the_node_overrides_that_of_the_command_line_and_of_the_dataflow(tmp_path, own):
    talker, tool = builds(tmp_path, own, run_env={"LEVEL": "run", "SHARED": "run"})
    assert (talker.env["LEVEL"], talker.env["SHARED"]) == ("node", "run")
    assert tool.env["LEVEL"] == "run"


def test_programs_of_the_environment_come_first_on_path(tmp_path, own):
    assert builds(tmp_path, own)[0].env["PATH"] == f"{own}:/usr/bin:/bin"


@pytest.fixture
def with_uv(tmp_path):
    """An environment that has a `uv` on its PATH."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "uv").touch(mode=0o755)
    return {"PATH": f"{folder}:/usr/bin"}


def test_uv_gives_a_python_node_its_own_environment(tmp_path, own, with_uv):
    talker, _ = builds(tmp_path, own, uv=True, environ=with_uv)
    uv, venv = str(tmp_path / "tools" / "uv"), tmp_path / ".dora" / "python-envs" / "talker"
    assert talker.commands[0][:2] == (uv, "venv")
    assert talker.commands[0][-1] == str(venv)
    assert talker.commands[1] == (uv, "pip", "install", "-e", "talker")
    assert talker.commands[-1] == (uv, "pip", "install", "--quiet", "pyarrow>=17", "numpy")
    assert talker.env["VIRTUAL_ENV"] == str(venv)
    assert talker.env["PATH"].startswith(f"{venv}/bin:")


def test_uv_keeps_an_existing_environment(tmp_path, own, with_uv):
    python = tmp_path / ".dora" / "python-envs" / "talker" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    talker, _ = builds(tmp_path, own, uv=True, environ=with_uv)
    assert talker.commands[0][1] == "pip"


def test_uv_makes_no_environment_for_other_programs(tmp_path, own, with_uv):
    _, tool = builds(tmp_path, own, uv=True, environ=with_uv)
    assert [command[1:3] for command in tool.commands] == [("pip", "install")]


def test_uv_that_is_not_installed_is_an_error(tmp_path, own):
    with pytest.raises(LaunchError, match="uv"):
        builds(tmp_path, own, uv=True, environ={"PATH": str(tmp_path)})


def test_a_command_can_be_pasted_with_its_folder_and_environment(tmp_path, own):
    talker, _ = builds(tmp_path / "a folder", own, environ={"PATH": str(own)})
    text = talker.pasteable(talker.commands[1])
    assert text.startswith(f"(cd '{tmp_path / 'a folder'}' && ")
    assert "LEVEL=node " in text
    assert "PATH=" not in text
    assert text.endswith(" make 'two words' 'and three')")


def test_a_program_is_looked_up_on_the_path_of_the_node(tmp_path, own):
    talker, _ = builds(tmp_path, own)
    (own / "make").touch(mode=0o755)
    assert Path(talker.program(talker.commands[1])) == own / "make"


def test_a_missing_program_is_an_error_that_names_it(tmp_path, own):
    talker, _ = builds(tmp_path, own, environ={"PATH": ""})
    with pytest.raises(BuildError, match=r"node 'talker': .*make: not found on PATH"):
        talker.program(("make",))


def test_uv_installs_other_programs_where_the_launcher_looks_for_them(tmp_path, own, with_uv):
    _, tool = builds(tmp_path, own, uv=True, environ=with_uv)
    assert tool.env["VIRTUAL_ENV"] == str(own.parent)
    assert tool.env["PATH"].startswith(f"{own}:")


@pytest.mark.parametrize("found", [".venv/", "pyproject.toml"])
def test_uv_is_left_the_environment_that_it_finds_itself(tmp_path, own, with_uv, found):
    place = tmp_path / found
    place.mkdir() if found.endswith("/") else place.touch()
    _, tool = builds(tmp_path, own, uv=True, environ=with_uv)
    assert "VIRTUAL_ENV" not in tool.env


def test_offline_keeps_uv_and_pip_from_the_network(tmp_path, own):
    dataflow = parse(FLOW, path=tmp_path / "flow.yml", environ={})
    context = BuildContext(
        dataflow, {"PATH": "/usr/bin"}, {}, uv=False, own_environment=own, offline=True
    )
    talker, _ = plan(context)
    assert (talker.env["UV_OFFLINE"], talker.env["PIP_NO_INDEX"]) == ("1", "1")
    assert {"UV_OFFLINE", "PIP_NO_INDEX"} <= set(talker.changes)


def test_compilers_find_the_library_after_the_paths_of_the_user(tmp_path, own):
    dataflow = parse(FLOW, path=tmp_path / "flow.yml", environ={})
    environ = {"PATH": "/usr/bin:/bin", "CMAKE_PREFIX_PATH": "/opt/mine"}
    library = tmp_path / "library"
    talker, tool = plan(BuildContext(dataflow, environ, {}, False, own, library=library))
    assert talker.env["CMAKE_PREFIX_PATH"] == f"/opt/mine:{library}"
    assert talker.env["PKG_CONFIG_PATH"] == f"{library}/lib/pkgconfig"
    assert tool.env["CMAKE_PREFIX_PATH"] == "/opt/mine", "pip alone needs no library"
