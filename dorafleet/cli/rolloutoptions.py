"""The options of `dorafleet plan` and `dorafleet rollout start`: which robots, and how."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dorad.commandline.durations import Duration
from dorafleet.cli.arguments import File, parse_pairs
from dorafleet.cli.complete import labels_option, robot_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dorafleet.rollout.messages import RolloutNew
    from dorafleet.rollout.strategy import Strategy

F = TypeVar("F", bound="Callable[..., Any]")

_SELECT = (
    click.option(
        "--robots",
        metavar="ID",
        multiple=True,
        shell_complete=robot_ids,
        help="Only these robots; may be repeated, or list several with commas.",
    ),
    labels_option,
    click.option(
        "--scope",
        metavar="each|one|each:LABEL",
        help="One instance on each robot, one over all of them, or one over those with the same "
        "value of a label.  [as it runs now, else each]",
    ),
)
_HOW = (
    click.option(
        "--strategy",
        "file",
        metavar="FILE",
        type=File(".yml", ".yaml"),
        help="A YAML file with the keys of docs/rollouts.md; options replace them.",
    ),
    click.option("--canary", metavar="N|N%", help="Robots that switch first, alone.  [1]"),
    click.option(
        "--canary-label",
        "canary_selector",
        metavar="KEY=VALUE",
        multiple=True,
        help="Labels of the canaries.",
    ),
    click.option(
        "--no-auto-promote",
        "auto_promote",
        flag_value=False,
        type=bool,
        default=None,
        help="Wait for `rollout promote` after the canaries.",
    ),
    click.option(
        "--max-parallel", metavar="N|N%", help="Maximum number of robots at a time.  [10%]"
    ),
    click.option(
        "--batch",
        "batches",
        metavar="KEY=VALUE[:N]",
        multiple=True,
        help="A group of robots, at most N at a time; groups switch in this order.",
    ),
    click.option(
        "--min-healthy-time", type=Duration(), help="How long a robot must be healthy.  [30s]"
    ),
    click.option(
        "--healthy-deadline",
        type=Duration(),
        help="After this time a robot that is not healthy reverts.  [5m]",
    ),
    click.option(
        "--confirm-deadline",
        type=Duration(),
        help="After this time a robot that has lost contact reverts.  [10m]",
    ),
    click.option(
        "--progress-deadline",
        type=Duration(),
        help="After this time a robot without a verdict has failed.  [10m]",
    ),
    click.option(
        "--no-auto-revert",
        "auto_revert",
        flag_value=False,
        type=bool,
        default=None,
        help="After too many failures, do not revert the other robots.",
    ),
    click.option(
        "--failure-threshold",
        metavar="N|N%",
        help="Accepted failures, except of canaries.  [10%, at least 2]",
    ),
    click.option(
        "--budget",
        metavar="LABEL=N|N%",
        help="Maximum number of unavailable robots with the same value of LABEL.",
    ),
    click.option(
        "--window",
        "windows",
        metavar="WINDOW",
        multiple=True,
        help="When a switch may begin: 'Mon-Fri 22:00-05:00 Europe/Berlin'.  [always]",
    ),
    click.option(
        "--busy",
        type=click.Choice(["wait", "ignore"]),
        help="Whether to wait for robots that must not be interrupted.  [wait]",
    ),
    click.option("--busy-max", type=Duration(), help="How long to wait for a busy robot.  [4h]"),
    click.option(
        "--catch-up", type=Duration(), help="How long to wait for unreachable robots.  [30d]"
    ),
    click.option(
        "--soak-time",
        type=Duration(),
        help="How long confirmed robots are watched before the end; 0: not at all.  [10m]",
    ),
    click.option(
        "--param",
        "params",
        metavar="NODE/NAME=VALUE",
        multiple=True,
        help="Set a parameter; robots drop all their other parameters.",
    ),
    click.option(
        "--retry", is_flag=True, help="Include robots where the release has failed before."
    ),
    click.option(
        "--allow-lower", is_flag=True, help="Accept a release that is older than the current one."
    ),
    click.option(
        "--lost",
        metavar="ROBOT",
        multiple=True,
        help="Let a machine that is away leave its instance, without waiting for it.",
    ),
    click.option("--supersede", is_flag=True, help="End a rollout that is switching robots now."),
)


def rollout_options(command: F) -> F:
    """Add the options to a command."""
    for option in reversed((*_SELECT, *_HOW)):
        command = option(command)
    return command


def request_of(release: str, given: dict[str, Any]) -> RolloutNew:
    """Return the request for these options.

    Raises:
        click.UsageError: an option is not written as it must be.
        DataflowError: the strategy file has mistakes, sorted by position.
    """
    from dorafleet.rollout.messages import RolloutNew

    words = given.pop("robots")
    params = _params(given.pop("params"))
    labels = parse_pairs("--label", given.pop("labels"))
    flags = {key: given.pop(key) for key in ("retry", "allow_lower", "supersede")}
    scope, lost = given.pop("scope"), list(given.pop("lost"))
    if scope not in (None, "each", "one") and not re.fullmatch("each:[^:]+", scope):
        raise click.UsageError(f"'{scope}' is not each, one or each:LABEL for --scope")
    return RolloutNew(
        release=release,
        scope=scope,
        robots=[each for word in words for each in word.split(",") if each],
        labels=labels,
        strategy=_strategy(given.pop("file"), given),
        params=params,
        lost=lost,
        **flags,
    )


def _strategy(file: Path | None, given: dict[str, Any]) -> Strategy:
    from dorafleet.cli.strategyfile import StrategyFile

    keys = {
        key: value
        for key, value in given.items()
        if value is not None and key not in ("canary_selector", "batches", "budget", "windows")
    }
    if given.get("canary_selector"):
        keys["canary_selector"] = parse_pairs("--canary-label", given["canary_selector"])
    if given.get("batches"):
        keys["batches"] = [_batch(text) for text in given["batches"]]
    if given.get("windows"):
        keys["windows"] = list(given["windows"])
    if given.get("budget"):
        label, equals, most = given["budget"].partition("=")
        if not label or not equals or not most:
            raise click.UsageError(f"'{given['budget']}' is not LABEL=N for --budget")
        keys["disruption_budget"] = {"group_by": label, "max_unavailable": most}
    return StrategyFile(file).strategy(keys)


def _batch(text: str) -> dict[str, Any]:
    labels, colon, limit = text.rpartition(":")
    if not colon:
        labels, limit = text, ""
    selector = parse_pairs("--batch", [each for each in labels.split(",") if each])
    return {"selector": selector, **({"limit": limit} if limit else {})}


def _params(words: Sequence[str]) -> dict[str, Any] | None:
    import msgspec

    if not words:
        return None
    values: dict[str, Any] = {}
    for key, value in parse_pairs("--param", words).items():
        if key.count("/") != 1 or key.startswith("/") or key.endswith("/"):
            raise click.UsageError(f"'{key}' is not NODE/NAME for --param")
        try:
            values[key] = msgspec.json.decode(value.encode())
        except (ValueError, RecursionError):
            values[key] = value
    return values
