"""Arguments and options that several commands share."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from dorad.commandline.files import path_items

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dorafleet.inventory.model import Cluster, Machine
    from dorafleet.ssh.fanout import MachineOutcome

    PathType = click.ParamType[Path]
else:  # generic only in click's newer releases
    PathType = click.ParamType

F = TypeVar("F", bound="Callable[..., Any]")
R = TypeVar("R")

DEFAULT_PARALLEL = 10
MAX_PARALLEL = 1000


class File(PathType):
    """A path, with completion of files that have one of the suffixes. The file need not exist."""

    name = "path"

    def __init__(self, *suffixes: str) -> None:
        self._suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        return Path(value)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Complete directories, and files with one of the suffixes."""
        return path_items(incomplete, self._suffixes)


def machine_ids(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the machines of the file before; none if the file has problems."""
    from dorad.dataflow.errors import DataflowError
    from dorafleet.inventory.load import load

    before, comma, last = incomplete.rpartition(",")
    # click reads no arguments after an option whose value is still to come.
    file = ctx.params.get("file") or next(iter(ctx.args), None)
    if file is None:
        return []
    try:
        machines = load(file).machines
    except DataflowError:
        return []
    return [
        CompletionItem(f"{before}{comma}{machine.id}", help=machine.host)
        for machine in machines
        if machine.id.startswith(last)
    ]


file_argument = click.argument("file", type=File(".yml", ".yaml"))
optional_file_argument = click.argument("file", type=File(".yml", ".yaml"), required=False)
only_option = click.option(
    "--only",
    metavar="ID",
    multiple=True,
    shell_complete=machine_ids,
    help="Only this machine; may be repeated, or list several with commas.",
)


def _parallel_option(default: int) -> Callable[[F], F]:
    return click.option(
        "--parallel",
        metavar="N",
        type=click.IntRange(1, MAX_PARALLEL),
        default=default,
        show_default=True,
        help="Maximum number of machines at once.",
    )


parallel_option = _parallel_option(DEFAULT_PARALLEL)


def default_state() -> Path:
    """Return the coordinator's folder: that of systemd, or one in the home."""
    given = os.environ.get("STATE_DIRECTORY", "").split(":")[0]
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(given) if given else Path(base) / "dorafleet"


def _state(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path:
    return (value or default_state()).absolute()


state_option = click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    callback=_state,
    help="The coordinator's folder.  [default: ~/.local/state/dorafleet]",
)
etcd_option = click.option(
    "--etcd",
    metavar="URL",
    multiple=True,
    help="Use the etcd cluster with this member instead of a file; may be repeated.",
)
etcd_ca_option = click.option(
    "--etcd-ca", type=click.Path(path_type=Path), help="The authority of etcd's certificates."
)
etcd_cert_option = click.option(
    "--etcd-cert", type=click.Path(path_type=Path), help="The certificate to show to etcd."
)
etcd_key_option = click.option(
    "--etcd-key", type=click.Path(path_type=Path), help="Its key, if it is in another file."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
port_option = click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=6013,
    show_default=True,
    help="The coordinator's port.",
)


def coordinator_options(command: F) -> F:
    """Add --state and --port, which choose the coordinator, to a command."""
    return state_option(port_option(command))


file_port_option = click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The coordinator's port on this machine.  [default: `coordinator.port` of FILE]",
)
accept_new_option = click.option(
    "--accept-new",
    is_flag=True,
    help="Trust new host keys and write them to known_hosts; changed keys are still refused.",
)


@dataclass(frozen=True, slots=True)
class OverSsh:
    """The machines that a command works on over SSH, and how."""

    cluster: Cluster
    machines: tuple[Machine, ...]
    parallel: int
    """Maximum number of machines at once."""
    accept_new: bool
    """Trust new host keys."""

    @property
    def ids(self) -> list[str]:
        """The ids of the machines, in the order of the file."""
        return [machine.id for machine in self.machines]

    def run(
        self,
        work: Callable[[Machine], Awaitable[R]],
        on_outcome: Callable[[MachineOutcome[R]], object],
    ) -> list[MachineOutcome[R]]:
        """Run `work` on all machines, `parallel` at once; return the outcomes in order."""
        from dorafleet.ssh.fanout import run_on_each

        return asyncio.run(
            run_on_each(self.machines, work, parallel=self.parallel, on_outcome=on_outcome)
        )


def over_ssh(parallel: int | None = DEFAULT_PARALLEL) -> Callable[[F], F]:
    """Return a decorator for a command on machines of a cluster file.

    It adds the argument FILE and the options --only, --parallel and --accept-new; the command gets
    one `OverSsh` instead of them. `parallel` is the default; with None there is no such option.
    """
    options = [accept_new_option, only_option, file_argument]
    if parallel is not None:
        options.insert(1, _parallel_option(parallel))

    def decorate(command: F) -> F:
        @wraps(command)
        def run(
            *,
            file: Path,
            only: Sequence[str],
            accept_new: bool,
            parallel: int = DEFAULT_PARALLEL,
            **given: Any,
        ) -> Any:
            from dorafleet.inventory.load import load

            cluster = load(file)
            machines = select_machines(cluster, only)
            return command(OverSsh(cluster, machines, parallel, accept_new), **given)

        decorated: Any = run
        for option in options:
            decorated = option(decorated)
        return cast("F", decorated)

    return decorate


def parse_pairs(option: str, words: Sequence[str]) -> dict[str, str]:
    """Return the values of an option `KEY=VALUE`, by key. Raises click.UsageError."""
    pairs: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise click.UsageError(f"'{word}' is not KEY=VALUE for {option}")
        pairs[key] = value
    return pairs


def select_machines(cluster: Cluster, only: Sequence[str]) -> tuple[Machine, ...]:
    """Return the machines named in `only`, or all, in the order of the file.

    Raises:
        click.UsageError: an id is not in the file.
    """
    from dorad.dataflow.nearest import did_you_mean

    wanted = [name for words in only for name in words.split(",") if name]
    if only and not wanted:
        raise click.UsageError("--only names no machine")
    for name in wanted:
        if name not in cluster.ids:
            hint = did_you_mean(name, cluster.ids)
            message = f"no machine `{name}` in {cluster.path}"
            raise click.UsageError(message + (f"; {hint}" if hint else ""))
    return tuple(each for each in cluster.machines if not wanted or each.id in wanted)
