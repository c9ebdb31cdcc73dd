"""Options that `dora run`, `start`, `logs` and `build` share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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


class LockFile(NamedTuple):
    """What is to be done with the lock file of `git` sources."""

    locked: bool = False
    """Whether it says which commits are fetched."""
    write: bool = False
    path: Path | None = None
    """Another file than the one beside the dataflow's file."""


def lock_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options about the lock file to a command, which gets them as `lock`."""

    @functools.wraps(command)
    def with_lock(
        *args: Any, locked: bool, write_lockfile: bool, lockfile: Path | None, **others: Any
    ) -> Any:
        if locked and write_lockfile:
            raise click.UsageError("--locked and --write-lockfile exclude each other")
        if lockfile is not None and not (locked or write_lockfile):
            raise click.UsageError("--lockfile needs --locked or --write-lockfile")
        return command(*args, lock=LockFile(locked, write_lockfile, lockfile), **others)

    for option in (
        click.option(
            "--lockfile",
            metavar="FILE",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Use this lock file instead of NAME.dora-lock.yaml beside NAME.yml.",
        ),
        click.option(
            "--write-lockfile", is_flag=True, help="Write the commits of `git` sources to a file."
        ),
        click.option(
            "--locked", is_flag=True, help="Fetch the commits that the lock file says, no others."
        ),
    ):
        with_lock = option(with_lock)
    return with_lock


class Launch(NamedTuple):
    """How a dataflow is started, beside what its file says."""

    uv: bool
    allow_shell: bool
    env: Mapping[str, str]
    strict: bool = False
    finish_flag: bool | None = None
    lock: LockFile = LockFile()


def launch_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a start to a LaunchCommand, which gets them as its argument `launch`."""

    @functools.wraps(command)
    def launched(
        *args: Any,
        uv: bool,
        allow_shell_nodes: bool,
        env: Mapping[str, str],
        strict: bool,
        exit_when_nodes_finish: bool | None,
        **others: Any,
    ) -> Any:
        launch = Launch(uv, allow_shell_nodes, env, strict, exit_when_nodes_finish)
        return command(*args, launch=launch, **others)

    for option in (finish_option, strict_option, env_option, shell_nodes_option, uv_option):
        launched = option(launched)
    return launched


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
