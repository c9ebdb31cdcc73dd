"""What to execute to build a dataflow: the commands of every node, their folder and environment.

Pure: decides from the dataflow, the environment and what exists on disk; runs nothing.
"""

from __future__ import annotations

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dorad.dataflow.model import NodeKind
from dorad.dataflow.words import split_command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.dataflow.model import Dataflow, Node

PIP = ("pip", "pip3")
ENVIRONMENTS = Path(".dora") / "python-envs"
"""Where `--uv` keeps a node's virtual environment, under the node's working directory."""


class BuildError(Exception):
    """A build that failed or cannot start; `str()` is one line for the user."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs builds are made with."""

    python: str
    """Absolute path of the interpreter that runs the nodes."""
    has_pip: bool
    """Whether that interpreter has pip."""
    uv: str | None = None
    """Absolute path of uv: use it. None: do not."""


@dataclass(frozen=True, slots=True)
class NodeBuild:
    """The build of one node: commands to run one after the other."""

    node: str
    cwd: Path
    """Made when it does not exist."""
    env: Mapping[str, str]
    """The whole environment of the commands."""
    changes: Mapping[str, str]
    """The part of `env` that is not inherited, to be shown with a command."""
    commands: tuple[tuple[str, ...], ...]
    """Each an argv; its first word is a path or is looked up on the PATH of `env`."""

    def pasteable(self, argv: tuple[str, ...]) -> str:
        """Write a command so that it can be pasted into any shell, from any folder."""
        settings = [f"{name}={shlex.quote(value)}" for name, value in self.changes.items()]
        words = " ".join([*settings, *(shlex.quote(word) for word in argv)])
        return f"(cd {shlex.quote(str(self.cwd))} && {words})"

    def program(self, argv: tuple[str, ...]) -> str:
        """Return the path of a command's program. Raises BuildError when there is none."""
        name = argv[0]
        if "/" in name:
            name = str(self.cwd / name)
        found = shutil.which(name, path=self.env.get("PATH"))
        if found is None:
            where = "there is no such program" if "/" in name else "it is not on PATH"
            raise BuildError(
                f"node '{self.node}': cannot run the build command `{shlex.join(argv)}`: "
                f"{argv[0]}: {where} (it is run without a shell: no `&&`, pipes or globs)"
            )
        return str(Path(self.cwd, found))


def plan(
    dataflow: Dataflow, tools: Tools, environ: Mapping[str, str], run_env: Mapping[str, str]
) -> tuple[NodeBuild, ...]:
    """Return the builds of all nodes that have any, in the order of the file.

    `environ` is inherited; over it goes the dataflow's `env`, then `run_env` (`--env`), then
    the node's own. Raises BuildError when pip is asked for and there is none.
    """
    builds = (_node_build(dataflow, node, tools, environ, run_env) for node in dataflow.nodes)
    return tuple(build for build in builds if build.commands)


def working_dir(dataflow: Dataflow, node: Node) -> Path:
    """Return the absolute folder a node is built and run in."""
    below = node.deploy.working_dir if node.deploy else None
    return dataflow.base_dir / below if below else dataflow.base_dir


def environment_dir(folder: Path, node: Node) -> Path | None:
    """Return where the virtual environment of a node belongs that `--uv` makes, None for none.

    Nodes have one that are written in Python and have something to build.
    """
    python = node.kind is NodeKind.OPERATORS or (node.path or "").endswith(".py")
    return folder / ENVIRONMENTS / node.id if python and _lines(node) else None


def _lines(node: Node) -> tuple[str, ...]:
    return (*node.build, *(line for operator in node.operators for line in operator.build))


def _node_build(
    dataflow: Dataflow,
    node: Node,
    tools: Tools,
    environ: Mapping[str, str],
    run_env: Mapping[str, str],
) -> NodeBuild:
    folder = working_dir(dataflow, node)
    changes = {**dataflow.env, **run_env, **node.own_env}
    commands: list[tuple[str, ...]] = []
    path = changes.get("PATH", environ.get("PATH", ""))
    if tools.uv and (venv := environment_dir(folder, node)):
        if not (venv / "bin" / "python").exists():
            commands.append((tools.uv, "venv", "--quiet", "--python", tools.python, str(venv)))
        changes |= {"VIRTUAL_ENV": str(venv), "PATH": f"{venv / 'bin'}:{path}"}
    elif not tools.uv:
        changes["PATH"] = f"{Path(tools.python).parent}:{path}"
    commands += [_tooled(node, split_command(line), tools) for line in _lines(node)]
    env = {**environ, **changes}
    shown = {name: value for name, value in changes.items() if environ.get(name) != value}
    return NodeBuild(node.id, folder, env, shown, tuple(commands) if _lines(node) else ())


def _tooled(node: Node, argv: tuple[str, ...], tools: Tools) -> tuple[str, ...]:
    """Turn a leading pip into the pip that installs for the interpreter the node will have."""
    if argv[0] not in PIP:
        return argv
    if tools.uv:
        return (tools.uv, "pip", *argv[1:])
    if not tools.has_pip:
        raise BuildError(
            f"node '{node.id}': `{shlex.join(argv)}` needs pip, which {tools.python} does not "
            "have; install it with `python -m ensurepip`, or build with --uv"
        )
    return (tools.python, "-m", "pip", *argv[1:])
