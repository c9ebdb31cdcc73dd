"""Decide what to execute for a node: its command line, folder and environment.

It is pure, except that it looks up files.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct, field

from dorad.dataflow.gitsources import FOLDER as GIT_FOLDER
from dorad.dataflow.gitsources import Reference, base_of
from dorad.dataflow.model import (
    ARCH,
    RECORDER,
    REPLAYER,
    ROS2,
    Dataflow,
    NodeKind,
    NodeSpec,
    ros2_words,
)
from dorad.launch import environment, operators, programs
from dorad.launch.helper import helper_environment
from dorad.launch.model import Command, Identity, LaunchError, NoFileError
from dorad.launch.secrets import find_secret
from dorad.node.runtime.config import CONFIG
from dorad.realtime.schedule import schedule_of

_log = logging.getLogger(__name__)
_SHELL = "/bin/sh"
OWN_PROGRAMS = {RECORDER: "dorad.record.recorder.node", REPLAYER: "dorad.record.replay.node"}
"""Programs of nodes that are part of dora. They run in its own environment."""

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_EXPANDED = ("HOME", "USER", "DORA_WORKSPACE", "CARGO_MANIFEST_DIR", "PWD")
"""The variables that are expanded in `path`; dora 1.x has the same five."""


class Runner(NamedTuple):
    """The node, or its operator, that runs a file."""

    node: str
    operator: str | None


class NodeRights:
    """Whom nodes run as, and what they may have. These are the rules of `dora run`."""

    def __init__(self, secrets: Iterable[Path] = ()) -> None:
        """Take secrets from these folders."""
        self._secrets = tuple(secrets)

    def identity(self, node: NodeSpec) -> Identity:
        """Return the user of a node, its groups and its folder. Raises LaunchError."""
        return Identity(node.user or "", node.groups)

    def sandboxed(self, node_id: str) -> bool:
        """Return True if a node loses the rights that most nodes never need."""
        del node_id
        return True

    def link_user(self) -> str:
        """Return the user of the link process; empty is the spawner's. Raises LaunchError."""
        return ""

    def secret(self, name: str) -> Path:
        """Return the file of a secret. Raises LaunchError."""
        return find_secret(name, self._secrets)


class LaunchContext(Struct, frozen=True):
    """The settings that the commands of all nodes of a run share."""

    dataflow: Dataflow
    environ: Mapping[str, str]
    """The environment that nodes inherit: normally `os.environ`."""
    run_env: Mapping[str, str] = field(default_factory=dict)
    """`--env`: over the dataflow's `env`, under the node's."""
    uv: bool = False
    allow_shell: bool = False
    """`--allow-shell-nodes`; DORA_ALLOW_SHELL_NODES=true in `environ` allows them too."""
    parent_pid: int | None = None
    """The value of DORA_RUN_PARENT_PID."""
    dataflow_name: str = ""
    """The name of the dataflow; empty if it has none."""
    rights: NodeRights = field(default_factory=NodeRights)
    own_environment: Path | None = field(default_factory=programs.own_environment)
    """`bin` of the virtual environment that dora runs from."""


def command_for(
    node: NodeSpec, context: LaunchContext, node_config: str, *, downloaded: Path | None = None
) -> Command:
    """Return the command of `node`; `node_config` is the text of DORA_NODE_CONFIG.

    `downloaded` is the local file of a node whose path is a URL (see `fetch.Downloads`).

    Raises:
        LaunchError: the file or command does not exist, or must not be run.
    """
    if node.kind is NodeKind.LINK:
        return _link_command(context, node_config)
    env = environment.layered_environment(
        context.environ, context.dataflow.env, context.run_env, node.own_env
    )
    identity = context.rights.identity(node)
    secrets = {name: context.rights.secret(name) for name in node.secrets}
    warnings = environment.left_out(context.run_env)
    folder = programs.folder_of(node, context.dataflow)
    if node.git is not None and folder == base_of(node, context.dataflow):
        raise NoFileError(
            f"its source {Reference.of(node.git)} was not fetched into {folder / GIT_FOLDER} "
            "(run `dora build`)"
        )
    programs.check_open(folder)
    if folder != context.dataflow.base_dir and not folder.is_dir():
        raise NoFileError(f"`deploy.working_dir`: there is no folder {folder} on this machine")
    args = shlex.split(node.args or "")
    match node.kind:
        case NodeKind.SHELL:
            _check_shell_allowed(context)
            argv = [_SHELL, "-c", node.args or ""]
            _activate(node, context, env, programs.environment_bin(env, context.own_environment))
        case NodeKind.PATH if (words := ros2_words(node.path or "")) is not None:
            argv = [*_ros2(folder, env), *words, *args]
        case NodeKind.PATH:
            path = _expand(node.path or "", context.environ, warnings)
            argv = [*_program(node, path, folder, context, env), *args]
        case NodeKind.URL if downloaded is not None:
            argv = [*_program(node, str(downloaded), folder, context, env), *args]
        case NodeKind.ROS2:
            argv = [*_bridge(node, folder, env), *args]
        case NodeKind.OPERATORS:
            env[CONFIG] = operators.runtime_config(node, folder)
            argv = [*_python(node, folder, context, env), "-u", "-c", operators.code(node)]
        case _:
            raise LaunchError(f"a node of kind `{node.kind}` has no command to run")
    env["PYTHONPATH"] = environment.with_compat(env.get("PYTHONPATH"))
    env["DORA_NODE_CONFIG"] = node_config
    if context.parent_pid is not None:
        env["DORA_RUN_PARENT_PID"] = str(context.parent_pid)
    _log.debug("node %s: %s", node.id, argv)
    return Command(
        tuple(argv),
        # The folder of a file that was started on another machine may be missing here.
        folder if folder.is_dir() else Path("/"),
        env,
        node.cpu_affinity,
        schedule_of(node.realtime),
        node.resources,
        identity,
        context.rights.sandboxed(node.id),
        context.dataflow_name,
        secrets,
        tuple(warnings),
    )


def _link_command(context: LaunchContext, node_config: str) -> Command:
    """Return the command of the link process, which gets none of the nodes' variables.

    Raises:
        LaunchError: what it needs is not installed.
    """
    if find_spec("zenoh") is None:
        raise LaunchError(
            "links between machines need the package eclipse-zenoh: pip install 'dorad[link]'"
        )
    env = helper_environment(context.environ)
    env["DORA_NODE_CONFIG"] = node_config
    return Command(
        (sys.executable, "-m", "dorad.link"),
        Path("/"),
        env,
        identity=Identity(context.rights.link_user()),
        dataflow_name=context.dataflow_name,
    )


def _bridge(node: NodeSpec, folder: Path, env: dict[str, str]) -> list[str]:
    """Return the words that start a bridge to ROS 2; add its configuration to `env`.

    Raises:
        LaunchError: there is no ROS 2 for it.
    """
    # Few dataflows need what it imports.
    from dorad.ros2 import environment as ros2_environment
    from dorad.ros2 import start as ros2_start

    assert node.ros2 is not None
    try:
        ros2_environment.choose(node.ros2.setup, folder, env)
    except ros2_environment.SetupError as error:
        raise LaunchError(str(error)) from error
    env[ros2_start.CONFIG] = msgspec.json.encode(node.ros2).decode()
    return [sys.executable, "-P", "-m", ros2_start.__name__]


def _ros2(folder: Path, env: Mapping[str, str]) -> list[str]:
    """Return the words that run `ros2` as a node. Raises LaunchError if there is no ROS 2."""
    from dorad.launch import ros2launch
    from dorad.ros2.environment import SetupError, choose

    if shutil.which(ROS2, path=env.get("PATH")) is None:
        try:
            choose(None, folder, env)  # which the node enters; that takes a second
        except SetupError as error:
            raise LaunchError(str(error)) from error
    return [sys.executable, "-P", "-m", ros2launch.__name__]


def program_files(context: LaunchContext, dataflow: Dataflow) -> dict[Path, tuple[Runner, ...]]:
    """Return the files that nodes and operators run, each with these.

    They are Python files and built programs; a command from PATH is not one of the dataflow.
    """
    files: dict[Path, tuple[Runner, ...]] = {}
    for node in dataflow.nodes:
        folder = programs.folder_of(node, dataflow)
        runs: list[tuple[str, str | None]] = [(each.source, each.id) for each in node.operators]
        if node.kind is NodeKind.PATH and node.path is not None and ros2_words(node.path) is None:
            runs.append((_expand(node.path, context.environ, []), None))
        for source, operator in runs:
            path = folder / source
            if path.suffix == ".py" or (operator is None and "/" in source):
                files[path] = (*files.get(path, ()), Runner(node.id, operator))
    return files


def _check_shell_allowed(context: LaunchContext) -> None:
    if not context.allow_shell and context.environ.get("DORA_ALLOW_SHELL_NODES") != "true":
        raise LaunchError(
            "`path: shell` runs any command, so it must be allowed: "
            "pass --allow-shell-nodes or set DORA_ALLOW_SHELL_NODES=true"
        )


def _program(
    node: NodeSpec, path: str, folder: Path, context: LaunchContext, env: dict[str, str]
) -> list[str]:
    """Return the words before the node's `args`; add the chosen Python's variables to `env`."""
    if path in OWN_PROGRAMS:
        return [sys.executable, "-P", "-m", OWN_PROGRAMS[path]]
    if context.uv:
        return _uv_program(node, path, folder, context, env)
    bin_folder = programs.environment_bin(env, context.own_environment)
    search = _activate(node, context, env, bin_folder)
    program = programs.find_program(path, folder, search)
    if program.suffix == ".py":
        return [programs.find_python(bin_folder, search), "-u", str(program)]
    return [str(program)]


def _python(node: NodeSpec, folder: Path, context: LaunchContext, env: dict[str, str]) -> list[str]:
    """Return the words that start an operator node's Python; add its variables to `env`."""
    if context.uv:
        builds = any(operator.build for operator in node.operators)
        return _uv_python(node, folder, context, env, builds=builds)
    bin_folder = programs.environment_bin(env, context.own_environment)
    return [programs.find_python(bin_folder, _activate(node, context, env, bin_folder))]


def _uv_program(
    node: NodeSpec, path: str, folder: Path, context: LaunchContext, env: dict[str, str]
) -> list[str]:
    on_path = env.get("PATH", "")
    if not path.endswith(".py"):
        # uv looks up any other name among the commands of its project.
        program = folder / path
        is_file = program.is_file() or "/" in path
        programs.activate_for_uv(env, folder, context.own_environment)
        return [
            programs.find_uv(on_path),
            "run",
            str(programs.find_program(path, folder, on_path)) if is_file else path,
        ]
    script = str(programs.find_program(path, folder, on_path))
    return [*_uv_python(node, folder, context, env, builds=bool(node.build)), "-u", script]


def _uv_python(
    node: NodeSpec, folder: Path, context: LaunchContext, env: dict[str, str], *, builds: bool
) -> list[str]:
    if not builds:
        programs.activate_for_uv(env, folder, context.own_environment)
        return [programs.find_uv(env.get("PATH", "")), "run", "python"]
    managed = managed_environment(folder, node.id)
    if not Path(managed, "bin", "python").exists():
        raise LaunchError(f"no Python in {managed}: run `dora build --uv` first")
    env["VIRTUAL_ENV"] = str(managed)
    _activate(node, context, env, managed / "bin")
    return [str(managed / "bin" / "python")]


def managed_environment(folder: Path, node_id: str) -> Path:
    """Return the virtual environment that `dora build --uv` makes for a node with a `build`."""
    return folder / ".dora" / "python-envs" / node_id


def _activate(
    node: NodeSpec, context: LaunchContext, env: dict[str, str], first: Path | None
) -> str:
    """Put the folder `first` on the node's PATH; return the folders to search for its program.

    A PATH that the file or `--env` sets stays as it is: some nodes read another meaning from it.
    """
    search = programs.search_path(env, first)
    if not any("PATH" in each for each in (context.dataflow.env, context.run_env, node.own_env)):
        env["PATH"] = search
        return search
    return os.pathsep.join(filter(None, (search, context.environ.get("PATH"))))


def _expand(path: str, environ: Mapping[str, str], warnings: list[str]) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name == ARCH:
            return environ.get(ARCH) or platform.machine()
        if name in _EXPANDED and name in environ:
            return environ[name]
        known = ", ".join((*_EXPANDED, ARCH))
        warnings.append(f"path: `{match[0]}` is left as it is; only {known} are expanded")
        return match[0]

    return _VARIABLE.sub(value, path)
