"""The command line, folder and environment of every kind of node."""

import errno
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from dorad.dataflow.model import Dataflow, NodeKind, NodeSpec, Operator
from dorad.dataflow.settings import Deploy
from dorad.launch.command import LaunchContext, command_for
from dorad.launch.environment import COMPAT_FOLDER
from dorad.launch.holder import wire
from dorad.launch.holder.link import spawn_error
from dorad.launch.model import Command, LaunchError
from dorad.node.runtime.config import CONFIG, OperatorEntry, from_environment


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


class Bench:
    """A folder with a dataflow, and its own PATH with a `python3`."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "flow"
        self.folder.mkdir()
        self.bin = root / "bin"
        self.python = executable(self.bin / "python3")
        self.environ = {"PATH": str(self.bin), "HOME": "/home/me"}

    def command(self, path: str = "node.py", **options: Any) -> Command:
        node = NodeSpec("n", options.pop("kind", NodeKind.PATH), path=path)
        flow = Dataflow((node,), self.folder / "flow.yml", self.folder)
        flow = replace(flow, env=options.pop("dataflow_env", {}))
        context = LaunchContext(flow, {**self.environ, **options.pop("environ", {})})
        own: dict[str, Any] = {"own_environment": None}
        fields = ("uv", "allow_shell", "run_env", "parent_pid", "own_environment")
        own |= {key: options.pop(key) for key in fields if key in options}
        downloaded = options.pop("downloaded", None)
        node = replace(node, **options)
        return command_for(node, replace(context, **own), "CONFIG", downloaded=downloaded)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    (bench.folder / "node.py").touch()
    return bench


@pytest.fixture
def fails(bench: Bench) -> Callable[..., str]:
    def text(*args: Any, **options: Any) -> str:
        with pytest.raises(LaunchError) as caught:
            bench.command(*args, **options)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return text


def test_a_python_file_runs_unbuffered_with_the_python_on_path(bench: Bench) -> None:
    command = bench.command(args="-x 'a b' $HOME")
    script = str(bench.folder / "node.py")
    assert command.argv == (str(bench.python), "-u", script, "-x", "a b", "$HOME")
    assert command.cwd == bench.folder


def test_python_is_as_good_a_name_as_python3(bench: Bench) -> None:
    bench.python.rename(bench.bin / "python")
    assert bench.command().argv[0] == str(bench.bin / "python")


def test_without_any_python_on_path_it_is_ours(bench: Bench) -> None:
    bench.python.unlink()
    assert bench.command().argv[0] == sys.executable


def test_the_active_virtual_environment_wins(bench: Bench, tmp_path: Path) -> None:
    python = executable(tmp_path / "active/bin/python")
    command = bench.command(
        environ={"VIRTUAL_ENV": str(tmp_path / "active")}, own_environment=tmp_path / "own/bin"
    )
    assert command.argv[0] == str(python)
    assert command.env["PATH"] == f"{python.parent}:{bench.bin}"


def test_a_deleted_virtual_environment_is_skipped(bench: Bench) -> None:
    assert bench.command(environ={"VIRTUAL_ENV": "/gone"}).argv[0] == str(bench.python)


def test_the_environment_dora_is_installed_in_counts_as_active(
    bench: Bench, tmp_path: Path
) -> None:
    python = executable(tmp_path / "own/bin/python")
    tool = executable(tmp_path / "own/bin/camera-node")
    assert bench.command(own_environment=python.parent).argv[0] == str(python)
    command = bench.command("camera-node", own_environment=python.parent)
    assert command.argv == (str(tool),)
    assert command.env["PATH"] == f"{python.parent}:{bench.bin}"


def test_the_python_of_a_virtual_environment_is_not_resolved(bench: Bench, tmp_path: Path) -> None:
    link = tmp_path / "own/bin/python"
    link.parent.mkdir(parents=True)
    link.symlink_to(bench.python)
    assert bench.command(own_environment=link.parent).argv[0] == str(link)


def test_a_command_in_the_folder_is_preferred_to_one_on_path(bench: Bench) -> None:
    executable(bench.bin / "tool")
    assert bench.command("tool").argv == (str(bench.bin / "tool"),)
    executable(bench.folder / "tool")
    assert bench.command("tool").argv == (str(bench.folder / "tool"),)


def test_a_folder_of_the_same_name_does_not_hide_a_command(bench: Bench) -> None:
    executable(bench.bin / "tool")
    (bench.folder / "tool").mkdir()
    assert bench.command("tool").argv == (str(bench.bin / "tool"),)


def test_a_relative_path_is_never_looked_up_on_path(
    bench: Bench, fails: Callable[..., str]
) -> None:
    executable(bench.bin / "sub/tool")
    assert "there is no folder" in fails("sub/tool")


def test_a_home_folder_that_the_service_may_not_enter_is_named_with_what_to_do(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    (home / "first").mkdir(parents=True)
    (home / "first/node.py").touch()
    home.chmod(0)
    root = os.geteuid() == 0
    if root:  # as the service: uid 0 without capabilities
        os.chown(home, 65534, 65534)
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if root else []
    code = """if True:
        import sys
        from pathlib import Path
        from dorad.launch.model import LaunchError
        from dorad.launch.programs import check_open, find_program
        folder = Path(sys.argv[1])
        for work in (lambda: find_program("node.py", folder, ""), lambda: check_open(folder)):
            try:
                print(work())
            except LaunchError as error:
                print(error)
    """
    words = [*drop, sys.executable, "-c", code, str(home / "first")]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    finally:
        home.chmod(0o700)
    if root and done.returncode and done.stderr.startswith("setpriv"):
        pytest.skip("setpriv cannot take rights away here")
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line in lines:
        assert line.startswith(f"dorad may not enter the folder {home} (move the dataflow to")


def test_variables_in_path_are_expanded_if_they_are_the_known_ones(bench: Bench) -> None:
    tool = executable(bench.folder / "$OTHER/tool")
    executable(Path(bench.folder, "tool"))
    assert bench.command("${HOME}", environ={"HOME": str(tool)}).argv == (str(tool),)
    command = bench.command("$OTHER/tool", environ={"OTHER": "x"})
    assert command.argv == (str(tool),)
    assert "`$OTHER` is left as it is" in command.warnings[0]
    mine = executable(bench.folder / f"build-{platform.machine()}" / "tool")
    assert bench.command("build-$DORA_ARCH/tool").argv == (str(mine),)
    other = executable(bench.folder / "build-riscv64" / "tool")
    command = bench.command("build-${DORA_ARCH}/tool", environ={"DORA_ARCH": "riscv64"})
    assert command.argv == (str(other),)


def test_a_missing_script_names_the_nearest(bench: Bench, fails: Callable[..., str]) -> None:
    assert fails("nod.py") == f"no file `nod.py` in {bench.folder} (did you mean `node.py`?)"


def test_a_missing_command_names_the_nearest(bench: Bench, fails: Callable[..., str]) -> None:
    executable(bench.bin / "dora-echo")
    assert fails("dora-ecko") == (
        f"no command `dora-ecko` on PATH and no file of that name in {bench.folder}"
        " (did you mean `dora-echo`?)"
    )


def test_a_file_that_is_not_executable_is_an_error(bench: Bench, fails: Callable[..., str]) -> None:
    (bench.folder / "tool").touch()
    assert "is not executable" in fails("./tool")


def test_a_folder_is_refused_as_a_program(bench: Bench, fails: Callable[..., str]) -> None:
    (bench.folder / "tool").mkdir()
    assert "is a folder" in fails("./tool")


def test_a_folder_is_no_script_and_no_command(bench: Bench, fails: Callable[..., str]) -> None:
    folder = bench.folder
    (folder / "camera.py").mkdir()
    assert fails("camera.py") == f"{folder / 'camera.py'} is a folder, not a program"
    (folder / "camera").mkdir()
    message = fails("camera")
    assert message.startswith(f"no command `camera` on PATH and {folder / 'camera'} is a folder")
    assert "did you mean `camera`" not in message


def test_a_link_to_a_missing_file_is_called_that(bench: Bench, fails: Callable[..., str]) -> None:
    (bench.folder / "camera.py").symlink_to("gone.py")
    assert fails("camera.py") == (
        f"{bench.folder / 'camera.py'} is a link to gone.py, which does not exist"
    )


def test_a_script_with_the_lines_of_windows_is_told_so(tmp_path: Path) -> None:
    script = executable(tmp_path / "camera")
    script.write_bytes(b"#!/bin/sh\r\necho hello\r\n")
    command = Command((str(script),), tmp_path)
    assert "`#!/bin/sh` ends with a carriage return" in str(
        spawn_error(command, wire.STAGE_EXECUTE, errno.ENOENT)
    )


def test_a_launch_file_of_ros_2_runs_in_a_node_of_ours(
    bench: Bench, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = (sys.executable, "-P", "-m", "dorad.launch.ros2launch")
    words = ("launch", "demo", "all.launch.py")
    monkeypatch.setattr("dorad.ros2.environment.choose.__defaults__", (tmp_path,))
    assert "there is no ROS 2 on this machine" in fails("ros2 launch demo all.launch.py")
    executable(bench.bin / "ros2")
    found = bench.command("ros2 launch demo all.launch.py", args="sim:=true 'a b:=c'").argv
    assert found == (*ours, *words, "sim:=true", "a b:=c")
    assert bench.command("ros2", args="launch demo all.launch.py").argv == (*ours, *words)


def test_a_shell_node_must_be_allowed(bench: Bench, fails: Callable[..., str]) -> None:
    shell: dict[str, Any] = {"kind": NodeKind.SHELL, "args": "echo $HOME | cat"}
    assert "--allow-shell-nodes" in fails("shell", **shell)
    allowed = bench.command("shell", allow_shell=True, **shell)
    assert allowed.argv == ("/bin/sh", "-c", "echo $HOME | cat")
    by_environment = bench.command("shell", environ={"DORA_ALLOW_SHELL_NODES": "true"}, **shell)
    assert by_environment.argv == allowed.argv


def test_a_dynamic_node_has_no_command(fails: Callable[..., str]) -> None:
    assert "dynamic" in fails("dynamic", kind=NodeKind.DYNAMIC)


def test_a_downloaded_file_runs_like_a_local_one(bench: Bench, tmp_path: Path) -> None:
    binary = executable(tmp_path / "build/tool")
    script = tmp_path / "build/tool.py"
    script.touch()
    url: dict[str, Any] = {"path": "https://host/tool", "kind": NodeKind.URL}
    assert bench.command(**url, downloaded=binary).argv == (str(binary),)
    assert bench.command(**url, downloaded=script).argv[1:] == ("-u", str(script))


def test_uv_runs_python_nodes_in_the_project_around_them(bench: Bench) -> None:
    uv = str(executable(bench.bin / "uv"))
    script = str(bench.folder / "node.py")
    assert bench.command(uv=True).argv == (uv, "run", "python", "-u", script)


def test_uv_gives_nodes_with_a_build_their_managed_environment(
    bench: Bench, fails: Callable[..., str]
) -> None:
    build: dict[str, Any] = {"uv": True, "build": ("pip install x",)}
    assert "dora build --uv" in fails(**build)
    python = executable(bench.folder / ".dora/python-envs/n/bin/python")
    command = bench.command(**build)
    assert command.argv == (str(python), "-u", str(bench.folder / "node.py"))
    assert command.env["VIRTUAL_ENV"] == str(python.parents[1])
    assert command.env["PATH"].startswith(f"{python.parent}:")


def operators(*ids: str, build: tuple[str, ...] = ()) -> dict[str, Any]:
    found = tuple(Operator(each, "python", f"{each}.py", build=build) for each in ids)
    return {"kind": NodeKind.OPERATORS, "operators": found}


def test_all_operators_of_a_node_run_in_one_python_process_that_gets_their_files(
    bench: Bench,
) -> None:
    command = bench.command(**operators("a", "b"))
    assert command.argv[:3] == (str(bench.python), "-u", "-c")
    assert command.argv[3].endswith("# node n")
    entries = tuple(OperatorEntry(each, str(bench.folder / f"{each}.py")) for each in "ab")
    assert from_environment(command.env) == entries
    assert CONFIG not in bench.command(environ={CONFIG: "of another"}).env


def test_uv_gives_operators_with_a_build_their_managed_environment(
    bench: Bench, fails: Callable[..., str]
) -> None:
    uv = executable(bench.bin / "uv")
    assert bench.command(uv=True, **operators("a")).argv[:4] == (str(uv), "run", "python", "-u")
    built = operators("a", build=("pip install x",))
    assert "run `dora build --uv` first" in fails(uv=True, **built)
    python = executable(bench.folder / ".dora/python-envs/n/bin/python")
    assert bench.command(uv=True, **built).argv[:2] == (str(python), "-u")


def test_a_node_without_any_operator_has_nothing_to_run(fails: Callable[..., str]) -> None:
    assert fails(**operators()) == "its list of operators is empty"


def test_uv_finds_commands_itself(bench: Bench) -> None:
    uv = str(executable(bench.bin / "uv"))
    tool = executable(bench.folder / "tool")
    assert bench.command("tool", uv=True).argv == (uv, "run", str(tool))
    assert bench.command("dora-echo", uv=True).argv == (uv, "run", "dora-echo")


def test_a_missing_uv_is_an_error(fails: Callable[..., str]) -> None:
    assert "`uv` command" in fails(uv=True)


def test_env_of_the_node_overrides_the_command_line_which_overrides_the_dataflow(
    bench: Bench,
) -> None:
    command = bench.command(
        environ=dict.fromkeys("ABCD", "inherited"),
        dataflow_env=dict.fromkeys("BCD", "dataflow"),
        run_env=dict.fromkeys("CD", "run"),
        own_env={"D": "node"},
    )
    assert [command.env[name] for name in "ABCD"] == ["inherited", "dataflow", "run", "node"]


def test_the_lookup_uses_the_path_the_node_will_have(bench: Bench, tmp_path: Path) -> None:
    tool = executable(tmp_path / "other/tool")
    assert bench.command("tool", own_env={"PATH": str(tool.parent)}).argv == (str(tool),)


@pytest.mark.parametrize("level", ["dataflow_env", "run_env", "own_env"])
def test_a_path_that_the_user_sets_stays_as_it_is(bench: Bench, tmp_path: Path, level: str) -> None:
    tool = executable(bench.bin / "tool")
    python = executable(tmp_path / "venv/bin/python")
    options = {level: {"PATH": "./episodes"}, "own_environment": python.parent}
    command = bench.command("tool", **options)
    assert command.argv == (str(tool),)
    assert command.env["PATH"] == "./episodes"
    assert bench.command("node.py", **options).argv[0] == str(python)


def test_secrets_loader_variables_and_configuration_of_others_are_not_inherited(
    bench: Bench,
) -> None:
    names = ("LD_PRELOAD", "DORA_AUTH_TOKEN", "DORA_ALLOW_SHELL_NODES", "DORA_RUNTIME_CONFIG")
    command = bench.command(environ={**dict.fromkeys(names, "x"), "LD_LIBRARY_PATH": "/lib"})
    assert not set(names) & set(command.env)
    assert command.env["LD_LIBRARY_PATH"] == "/lib"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("LD_PRELOAD", "for safety, loader variables (LD_PRELOAD, LD_AUDIT, "),
        ("DYLD_INSERT_LIBRARIES", "for safety, loader variables ("),
        ("DORA_AUTH_TOKEN", "only dora sets it"),
    ],
)
def test_reserved_names_on_the_command_line_are_left_out_with_the_reason(
    bench: Bench, name: str, reason: str
) -> None:
    command = bench.command(run_env={name: "x", "OK": "1"})
    assert name not in command.env
    assert command.env["OK"] == "1"
    (warning,) = command.warnings
    assert warning.startswith(f"--env {name} is left out: {reason}")


def test_variables_that_dora_sets_for_a_node(bench: Bench) -> None:
    env = bench.command(parent_pid=42, own_env={"PYTHONPATH": "/mine"}).env
    assert env["DORA_NODE_CONFIG"] == "CONFIG"
    assert env["DORA_RUN_PARENT_PID"] == "42"
    assert env["PYTHONUNBUFFERED"] == "1"
    assert env["PYTHONPATH"] == f"{COMPAT_FOLDER}:/mine"


def test_pinning_is_passed_on(bench: Bench) -> None:
    assert bench.command(cpu_affinity=(1, 3)).cpu_affinity == (1, 3)


def test_a_node_runs_in_its_working_directory(bench: Bench) -> None:
    own = bench.folder / "there"
    own.mkdir()
    (own / "other.py").touch()
    found = bench.command("other.py", deploy=Deploy(working_dir="there"))
    assert (found.cwd, found.argv[-1]) == (own, str(own / "other.py"))


def test_a_working_directory_that_this_machine_lacks_is_named(
    bench: Bench, fails: Callable[..., str]
) -> None:
    text = fails(deploy=Deploy(working_dir="/none/such"))
    assert text == "`deploy.working_dir`: there is no folder /none/such on this machine"


def test_a_command_runs_although_the_file_is_only_on_the_machine_that_started_it(
    bench: Bench, fails: Callable[..., str]
) -> None:
    (bench.folder / "node.py").unlink()
    bench.folder.rmdir()
    assert bench.command("python3").cwd == Path("/")
    assert f"there is no folder {bench.folder}" in fails("node.py")


def test_the_link_gets_nothing_of_the_environment_of_nodes(bench: Bench) -> None:
    environ = {"TOKEN": "hunter2", "LANG": "C"}
    found = bench.command("", kind=NodeKind.LINK, dataflow_env={"A": "1"}, environ=environ)
    assert found.argv == (sys.executable, "-m", "dorad.link")
    assert found.env == {
        "PATH": str(bench.bin),
        "LANG": "C",
        "DORA_NODE_CONFIG": "CONFIG",
    }
