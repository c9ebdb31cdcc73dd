"""Completions from the coordinator: robots, labels, dataflows; none if it does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from dorad.commandline.complete import DEADLINE_S, matching, running_dataflows
from dorafleet.cli.coordinator import list_robots

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dorad.control.client import Client


def robot_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the machines that the coordinator knows."""
    del ctx, param
    return matching(
        incomplete,
        connect_briefly,
        lambda client: (CompletionItem(each.id, help=each.state) for each in list_robots(client)),
    )


def label_pairs(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the labels of all machines as `KEY=VALUE`."""
    del ctx, param

    def pairs(client: Client) -> Iterable[CompletionItem]:
        labels = {pair for each in list_robots(client) for pair in each.labels.items()}
        return (CompletionItem(f"{name}={value}") for name, value in sorted(labels))

    return matching(incomplete, connect_briefly, pairs)


labels_option = click.option(
    "-l",
    "--label",
    "labels",
    metavar="KEY=VALUE",
    multiple=True,
    shell_complete=label_pairs,
    help="Only robots with this label; may be repeated.",
)


def label_changes(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the labels of all machines as `KEY=VALUE`, and those of this machine as `KEY-`."""

    def removals(client: Client) -> Iterable[CompletionItem]:
        for each in list_robots(client):
            if each.id == ctx.params.get("machine"):
                yield from (CompletionItem(f"{name}-", help="remove it") for name in each.labels)

    return [*label_pairs(ctx, param, incomplete), *matching(incomplete, connect_briefly, removals)]


def dataflow_names(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the dataflows that run in the fleet."""
    del ctx, param
    return matching(incomplete, connect_briefly, running_dataflows)


def connect_briefly() -> Client:
    """Connect to the coordinator of the user for completions. Raises ControlError."""
    from dorad.control.choosing import chosen, coordinator_folder, encrypts, in_folder
    from dorad.control.client import Client
    from dorad.control.target import COORDINATOR_PORT, Tcp

    folder = coordinator_folder()
    own = in_folder(folder, COORDINATOR_PORT, encrypts=encrypts(folder))
    targets = tuple(each for each in chosen() if isinstance(each, Tcp)) or (own,)
    return Client(targets, timeout=DEADLINE_S)
