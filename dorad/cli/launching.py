"""What `dora run` and `dora start` have in common: their options, and what comes before a start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.dataflow.model import Dataflow

FINISH_FLAG = "--exit-when-nodes-finish"


class LaunchCommand(click.Command):
    """A command with a flag that may be given a value, but only with `=`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let the bare flag stand for true, so that it does not take the next word."""
        whole = [f"{FINISH_FLAG}=true" if word == FINISH_FLAG else word for word in args]
        return super().parse_args(ctx, whole)


def _parse_env(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    env = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"'{text}': write it as KEY=VALUE")
        if "$" in text:
            raise click.BadParameter(f"'{text}': `$` is not expanded here; write the value itself")
        env[name] = value
    return env


def _parse_finish(_: click.Context, __: click.Parameter, word: str | None) -> bool | None:
    return None if word is None else word == "true"


uv_option = click.option("--uv", is_flag=True, help="Build and run Python nodes with uv.")
shell_nodes_option = click.option(
    "--allow-shell-nodes", is_flag=True, help="Allow nodes with `path: shell`."
)
debug_option = click.option(
    "--debug", is_flag=True, help="Accepted for dora 1.x; inspection needs no switch."
)
strict_option = click.option(
    "--strict", is_flag=True, help="Unknown keys that are ignored elsewhere are errors."
)
env_option = click.option(
    "--env",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_parse_env,
    help="Set a variable for all nodes.",
)
reload_option = click.option(
    "--hot-reload",
    is_flag=True,
    help="Reload operators and restart Python nodes when their files change.",
)
finish_option = click.option(
    FINISH_FLAG,
    type=click.Choice(["true", "false"], case_sensitive=False),
    callback=_parse_finish,
    metavar="[=BOOL]",
    help="End timer-fed nodes too once their data inputs have closed.",
)


def refuse_unsupported(dataflow: Dataflow, *, strict: bool = False) -> None:
    """Raise DataflowError if the dataflow asks for what does not exist yet, or for fitting types.

    The latter only where it has `strict_types` and they do not fit. With `strict` also if it has
    keys that are ignored.
    """
    from dorad.dataflow.errors import DataflowError
    from dorad.dataflow.problems import in_order
    from dorad.dataflow.support import unsupported
    from dorad.dataflow.types.strict import type_problems

    ignored = dataflow.ignored if strict else ()
    problems = (*unsupported(dataflow), *type_problems(dataflow), *ignored)
    if problems:
        raise DataflowError(in_order(problems))


def tell_warnings(dataflow: Dataflow) -> None:
    """Say on standard error what will not do what the file hopes for."""
    from dorad.cli.session import tell
    from dorad.dataflow.types.strict import all_warnings

    for warning in all_warnings(dataflow):
        tell("warning:", "yellow", str(warning))


def build_first(dataflow: Dataflow, *, uv: bool, env: Mapping[str, str]) -> None:
    """Run the build commands, if there are any. Raises BuildError when one fails."""
    if not any(node.build or any(o.build for o in node.operators) for node in dataflow.nodes):
        return
    from dorad.cli.builder import build_dataflow

    build_dataflow(dataflow, uv=uv, extra_env=env, echo=_echo)


def _echo(line: str) -> None:
    """Show a line of the build; standard output is for the nodes' lines alone."""
    click.echo(line, err=True)
