"""Options that `dora run`, `start`, `logs` and `build` share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from dorad.logs.filter import LogFilter

Decorated = TypeVar("Decorated", bound="Callable[..., Any]")

FINISH_FLAG = "--exit-when-nodes-finish"


class LaunchCommand(click.Command):
    """A command with a flag that takes an optional value, `--flag` or `--flag=VALUE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Replace the bare flag with `--flag=true`, so that it does not take the next word."""
        whole = [f"{FINISH_FLAG}=true" if word == FINISH_FLAG else word for word in args]
        return super().parse_args(ctx, whole)


def _parse_env(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    env = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"'{text}' is not KEY=VALUE")
        if "$" in text:
            raise click.BadParameter(f"'{text}': `$` is not expanded here; write the value")
        env[name] = value
    return env


def _parse_finish(_: click.Context, __: click.Parameter, word: str | None) -> bool | None:
    return None if word is None else word == "true"


uv_option = click.option("--uv", is_flag=True, help="Build and run Python nodes with uv.")
shell_nodes_option = click.option(
    "--allow-shell-nodes", is_flag=True, help="Allow nodes with `path: shell`."
)
debug_option = click.option("--debug", is_flag=True, help="Accepted for dora 1.x; has no effect.")
strict_option = click.option(
    "--strict", is_flag=True, help="Treat unknown keys as errors instead of ignoring them."
)
env_option = click.option(
    "--env",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_parse_env,
    help="Set an environment variable for all nodes; may be repeated.",
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
    help="Also end nodes with timers once their data inputs have closed.",
)
log_format_option = click.option(
    "--log-format",
    type=click.Choice(["pretty", "json", "compact"]),
    default="pretty",
    envvar="DORA_LOG_FORMAT",
    help="Format of the log lines.",
)
log_filter_option = click.option(
    "--log-filter",
    metavar="NODE=LEVEL,...",
    envvar="DORA_LOG_FILTER",
    help="Minimum severity for each node.",
)


def log_level_option(flag: str) -> Callable[[Decorated], Decorated]:
    """Return the option for the minimum severity. dora 1.x has two names for it."""
    return click.option(
        flag, metavar="LEVEL", envvar="DORA_LOG_LEVEL", help="Minimum severity to show."
    )


def shown_lines(level: str | None, by_node: str | None) -> LogFilter:
    """Return the filter that these options ask for. Raises click.UsageError for invalid ones."""
    from dorad.logs.filter import parse_filter

    try:
        return parse_filter(level, by_node)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
