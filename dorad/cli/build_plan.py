"""Plan the build of a dataflow: the commands of every node, their folder and environment.

It reads files, but runs nothing.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dorad.dataflow.model import Dataflow, NodeKind, NodeSpec
from dorad.dataflow.words import split_command
from dorad.launch import programs
from dorad.launch.command import managed_environment
from dorad.launch.environment import layered_environment
from dorad.problems import ProblemError

PIP = ("pip", "pip3")
NODE_PACKAGES = ("pyarrow>=17", "numpy")
"""Packages that every Python node needs; the launcher adds dora itself to its path."""
SHELL_WORDS = frozenset(("&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1"))
"""Words by which one recognizes a line that was written for a shell."""
OFFLINE = {"UV_OFFLINE": "1", "PIP_NO_INDEX": "1"}
"""Variables that keep uv and pip off the network: uv uses its cache, pip what is installed."""


class BuildError(ProblemError):
    """A build that failed or cannot start."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__("refused", message, hint)


@dataclass(frozen=True, slots=True)
class NodeBuild:
    """The build of one node: commands to run in order."""

    node: str
    cwd: Path
    """Created if it does not exist."""
    env: Mapping[str, str]
    """The complete environment of the commands."""
    changes: Mapping[str, str]
    """The variables in `env` that are not inherited; shown with a failed command."""
    commands: tuple[tuple[str, ...], ...]
    """Argument lists; each program is a path or is looked up on the PATH of `env`."""
    python: str
    """The Python that runs the node; it may not exist before the build."""
    own: bool
    """Whether no other node uses it."""

    def pasteable(self, argv: tuple[str, ...]) -> str:
        """Return a shell line that repeats a command, from any folder."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.changes.items()]
        words = " ".join([*settings, *(shlex.quote(word) for word in argv)])
        return f"(cd {shlex.quote(str(self.cwd))} && {words})"

    def program(self, argv: tuple[str, ...]) -> str:
        """Return the path of a command's program. Raises BuildError if it does not exist."""
        name = argv[0]
        head = f"node '{self.node}': cannot run the build command `{shlex.join(argv)}`"
        if shells := [word for word in argv if word in SHELL_WORDS]:
            raise BuildError(
                f"{head}: no shell runs it, which `{shells[0]}` needs (write each command in a "
                "line of its own, or `sh -c '...'`)"
            )
        if "/" in name:
            name = str(self.cwd / name)
        path = shutil.which(name, path=self.env.get("PATH"))
        if path is None:
            where = "no such program" if "/" in name else "not found on PATH"
            hint = "commands run without a shell: no `&&`, pipes or globs"
            if argv[0] == "cd":
                hint = "write `make -C FOLDER`, or the whole line as `sh -c '...'`"
            elif "=" in argv[0]:
                hint = "set variables in the `env` of the node"
            raise BuildError(f"{head}: {argv[0]}: {where} ({hint})")
        return str(Path(self.cwd, path))


@dataclass(frozen=True, slots=True)
class BuildContext:
    """The settings that the builds of all nodes share."""

    dataflow: Dataflow
    environ: Mapping[str, str]
    """The environment that commands inherit: normally `os.environ`."""
    run_env: Mapping[str, str]
    """Variables of `--env`. They override the dataflow's `env`; a node's `env` overrides them."""
    uv: bool
    own_environment: Path | None
    """The `bin` folder of the virtual environment that dora runs from."""
    offline: bool = False
    """Whether uv and pip must not download anything."""
    library: Path | None = None
    """The prefix of libdora_node, for compilers; None if the system's is to be found."""


def plan(context: BuildContext) -> tuple[NodeBuild, ...]:
    """Return the builds of all nodes with `build` commands, in the order of the file.

    Raises LaunchError if uv is wanted but not installed.
    """
    builds = (
        _node_build(node, lines, context)
        for node in context.dataflow.nodes
        if (lines := _lines(node))
    )
    return tuple(builds)


def _lines(node: NodeSpec) -> tuple[str, ...]:
    return (*node.build, *(line for operator in node.operators for line in operator.build))


def _node_build(node: NodeSpec, lines: tuple[str, ...], context: BuildContext) -> NodeBuild:
    """Plan the build of one node for the environment that the launcher will use."""
    folder = context.dataflow.base_dir
    if node.git is not None:
        folder = programs.folder_of(node, context.dataflow)
    env = layered_environment(context.environ, context.dataflow.env, context.run_env, node.own_env)
    if context.offline:
        env |= OFFLINE
    bin_folder = programs.environment_bin(env, context.own_environment)
    python = programs.find_python(bin_folder, programs.search_path(env, bin_folder))
    own = False
    commands: list[tuple[str, ...]] = []
    needed: list[tuple[str, ...]] = []
    if context.uv:
        uv = programs.find_uv(env.get("PATH", ""))
        if node.kind is NodeKind.OPERATORS or (node.path or "").endswith(".py"):
            venv = managed_environment(folder, node.id)
            if not Path(venv, "bin", "python").exists():
                commands.append((uv, "venv", "--quiet", "--python", python, str(venv)))
            env["VIRTUAL_ENV"] = str(venv)
            bin_folder = venv / "bin"
            python, own = str(bin_folder / "python"), True
            # Last, so that the node's own commands decide the versions.
            needed.append((uv, "pip", "install", "--quiet", *NODE_PACKAGES))
        else:
            programs.activate_for_uv(env, folder, context.own_environment)
        pip: tuple[str, ...] = (uv, "pip")
    else:
        # The first pip on PATH may belong to another interpreter.
        pip = (python, "-m", "pip")
    env["PATH"] = programs.search_path(env, bin_folder)
    for line in lines:
        name, *rest = split_command(line)
        commands.append((*pip, *rest) if name in PIP else (name, *rest))
        if context.library is not None and name not in PIP:
            env |= _compiler_paths(env, context.library)
    changes = {k: v for k, v in env.items() if context.environ.get(k) != v}
    return NodeBuild(node.id, folder, env, changes, (*commands, *needed), python, own)


def _compiler_paths(env: Mapping[str, str], library: Path) -> dict[str, str]:
    """Return variables by which CMake and pkg-config find libdora_node, after the user's own."""
    paths = {}
    for name, folder in (
        ("CMAKE_PREFIX_PATH", library),
        ("PKG_CONFIG_PATH", library / "lib" / "pkgconfig"),
    ):
        folders = env[name].split(os.pathsep) if env.get(name) else []
        if str(folder) not in folders:
            paths[name] = os.pathsep.join([*folders, str(folder)])
    return paths
