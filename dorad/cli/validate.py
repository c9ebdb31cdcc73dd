"""`dora validate`: check a dataflow file."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec.structs import asdict

from dorad.cli.options import strict_option
from dorad.cli.select import dataflow_option, load_running
from dorad.commandline.files import dataflow_argument, default_dataflow, load_dataflow
from dorad.terminal import visible

if TYPE_CHECKING:
    from dorad.dataflow.errors import Problem
    from dorad.dataflow.model import Dataflow

EPILOG = """\b
Examples:
  dora validate                        check ./dataflow.yml
  dora validate robot.yml --json
  dora validate -d demo                a running dataflow, with its changes since the start
  dora validate --node-manifest dora-node.yml
\b
Each problem is one line, `file:line:column: key: problem`, which editors understand.
Exit code 0: the file is valid. 1: it has problems, which are on standard error.
"""


@click.command(epilog=EPILOG)
@dataflow_argument(required=False)
@dataflow_option
@click.option("--strict-types", is_flag=True, help="Treat all problems with types as errors.")
@strict_option
@click.option(
    "--node-manifest",
    "manifest",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Check a node's manifest (dora-node.yml) instead of a dataflow.",
)
@click.option("--offline", is_flag=True, help="Accepted for dora 1.x; has no effect.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def validate(
    path: Path | None,
    *,
    dataflow: str | None,
    strict_types: bool,
    strict: bool,
    manifest: Path | None,
    offline: bool,
    as_json: bool,
) -> int:
    """Check the dataflow PATH, or a running one, and list all its problems."""
    del offline
    from dorad.dataflow.errors import DataflowError

    if manifest is not None:
        if path is not None or dataflow is not None:
            raise click.UsageError("give one of PATH, --dataflow and --node-manifest")
        return _check_manifest(manifest, as_json=as_json)
    if path is not None and dataflow is not None:
        raise click.UsageError("give either PATH or --dataflow")

    path = path or (default_dataflow() if dataflow is None else Path(dataflow))
    try:
        checked = load_dataflow(path) if dataflow is None else load_running(dataflow)
        return _check(
            path,
            checked,
            running=dataflow is not None,
            strict_types=strict_types,
            strict=strict,
            as_json=as_json,
        )
    except DataflowError as error:
        return _report(path, None, error.problems, (), (), as_json=as_json)


def _check(
    path: Path,
    dataflow: "Dataflow",
    *,
    running: bool,
    strict_types: bool,
    strict: bool,
    as_json: bool,
) -> int:
    from dorad.dataflow.problems import in_order
    from dorad.dataflow.support import unsupported
    from dorad.dataflow.types.check import check_types
    from dorad.dataflow.types.strict import all_warnings, type_problems
    from dorad.dataflow.types.user import read_user_types

    read_user_types(path.parent)  # checks them even if no input or output uses a type
    problems = type_problems(dataflow, strict=strict_types)
    if strict:
        problems = in_order((*problems, *dataflow.ignored))
    warnings = tuple(warning for warning in all_warnings(dataflow) if warning not in problems)
    notes = (*unsupported(dataflow, placed=True), *check_types(dataflow).inferred)
    # The programs of a dataflow that runs are there, if on other machines.
    programs = () if running else missing_programs(dataflow, os.environ)
    return _report(path, dataflow, problems, (*warnings, *programs), notes, as_json=as_json)


def _check_manifest(path: Path, *, as_json: bool) -> int:
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.manifest import check_manifest

    try:
        inputs, outputs = check_manifest(path)
    except DataflowError as error:
        return _report(path, None, error.problems, (), (), as_json=as_json)
    if as_json:
        return _report(path, None, (), (), (), as_json=True)
    ports = ", ".join(
        f"{count} {word}{'' if count == 1 else 's'}"
        for count, word in ((inputs, "input"), (outputs, "output"))
    )
    click.echo(f"{visible(str(path))}: {click.style('ok', fg='green')}, {ports}")
    return 0


def missing_programs(dataflow: "Dataflow", environ: Mapping[str, str]) -> tuple["Problem", ...]:
    """Return a warning for each node whose program does not exist here.

    It is not an error, since the file may be for another machine. Nodes with `build` are skipped.
    """
    from dorad.dataflow.model import NodeKind
    from dorad.launch.command import LaunchContext, NodeRights, command_for
    from dorad.launch.model import LaunchError
    from dorad.launch.operators import missing_files

    class AnySecret(NodeRights):
        """Takes every secret as there: the robot has it."""

        def secret(self, name: str) -> Path:
            return Path(name)

    context = LaunchContext(dataflow, environ, rights=AnySecret())
    problems = []
    for node in dataflow.nodes:
        if node.kind is NodeKind.PATH and not node.build and node.git is None:
            try:
                command_for(node, context, "")
            except LaunchError as error:
                problems.append(dataflow.problem(f"{node.key}.path", str(error)))
        elif node.kind is NodeKind.OPERATORS and not any(each.build for each in node.operators):
            problems += [dataflow.problem(key, text) for key, text in missing_files(node, dataflow)]
    return tuple(problems)


def _report(
    path: Path,
    dataflow: "Dataflow | None",
    problems: Sequence["Problem"],
    warnings: Sequence["Problem"],
    notes: Sequence["Problem"],
    *,
    as_json: bool,
) -> int:
    """Print the result and return the exit code."""
    if as_json:
        click.echo(json.dumps(_plain(path, dataflow, problems, warnings, notes), indent=2))
        return 1 if problems else 0
    for problem in problems:
        click.echo(str(problem), err=True)
    for colour, kind, listed in (("yellow", "warning:", warnings), ("cyan", "note:", notes)):
        for problem in listed:
            click.echo(f"{click.style(kind, fg=colour)} {problem}", err=True)
    if problems or dataflow is None:
        return 1
    from dorad.dataflow.picture import summary

    click.echo(f"{path}: {click.style('ok', fg='green')}, {summary(dataflow)}")
    return 0


def _plain(
    path: Path,
    dataflow: "Dataflow | None",
    problems: Sequence["Problem"],
    warnings: Sequence["Problem"],
    notes: Sequence["Problem"],
) -> dict[str, Any]:
    result: dict[str, Any] = {"file": str(path), "ok": not problems}
    if dataflow is not None:
        from dorad.dataflow.picture import counts

        result |= counts(dataflow)
    for name, listed in (("problems", problems), ("warnings", warnings), ("notes", notes)):
        result[name] = [asdict(problem) for problem in listed]
    return result
