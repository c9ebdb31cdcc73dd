"""Follow a rollout to its end: show its progress, and send its release to robots that wait."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from dorad.commandline.tables import plain, print_lines
from dorad.terminal import visible
from dorafleet.cli import rolloutshow
from dorafleet.cli.rolloutdisplay import Display
from dorafleet.rollout.model import FAILURES, FINAL

if TYPE_CHECKING:
    from dorad.control.asyncclient import AsyncClient
    from dorad.control.target import Targets
    from dorafleet.cli.rolloutsend import Sender
    from dorafleet.rollout.messages import RolloutSummary

RECONNECT_S = 2.0

ENDS = FINAL | {"settled", "awaiting_promotion", "revert_incomplete"}
"""Phases in which nothing more is to be followed."""


async def follow(targets: Targets, number: int, sender: Sender, display: Display) -> RolloutSummary:
    """Follow a rollout to its end, over lost connections, and send what robots wait for.

    Raises:
        ControlError: the coordinator refuses, or does not know the rollout.
    """
    from dorad.control.errors import ControlError

    try:
        while True:
            try:
                summary = await _follow_once(targets, number, sender, display)
                if summary is not None:
                    return summary
            except ControlError as error:
                if error.code not in ("unavailable", "deadline") or display.summary is None:
                    raise
                display.report(f"{error.message}; trying again; the rollout continues")
                await _until_back(targets, display)
    finally:
        await sender.close()


async def _follow_once(
    targets: Targets, number: int, sender: Sender, display: Display
) -> RolloutSummary | None:
    """Follow it over one connection; return None if SSH does not reach a robot: open a new one."""
    from dorad.control.asyncclient import AsyncClient
    from dorad.control.errors import ControlError
    from dorafleet.rollout.messages import ROLLOUT_WATCH, RolloutWatch

    async with AsyncClient(targets) as client:
        beyond = sorted(sender.beyond)
        watch = RolloutWatch(rollout=number, sends=sender.can_send, beyond=beyond)
        async with client.stream(ROLLOUT_WATCH, watch) as stream:
            coming = asyncio.ensure_future(anext(stream, None))
            try:
                while True:
                    await asyncio.wait(
                        (coming, *sender.tasks),
                        timeout=1.0,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                    if coming.done():
                        event = coming.result()
                        if event is None:
                            raise ControlError("unavailable", "the coordinator ended the stream")
                        display.update(event)
                        coming = asyncio.ensure_future(anext(stream, None))
                    if display.summary is not None and has_ended(display.summary):
                        return display.summary
                    waiting = [
                        robot.robot
                        for robot in display.robots.values()
                        if robot.waiting == "files" and robot.reachable
                    ]
                    sender.send(waiting, display.sent)
                    sender.upload(targets, display.report)
                    if sorted(sender.beyond) != beyond:
                        return None
                    await _report_refusals(client, number, sender, display)
            finally:
                coming.cancel()


async def _report_refusals(
    client: AsyncClient, number: int, sender: Sender, display: Display
) -> None:
    """Report robots that do not take the files to the coordinator, which judges them."""
    from dorad.control.errors import ControlError
    from dorafleet.rollout.messages import ROLLOUT_REFUSE, RolloutRefusal

    for robot, reason in list(sender.refusals.items()):
        refusal = RolloutRefusal(rollout=number, robot=robot, reason=reason)
        try:
            await client.call(ROLLOUT_REFUSE, refusal)
        except ControlError as error:
            if error.code not in ("refused", "not-found"):
                raise
            display.report(f"{robot}: {reason}; {error.message}")
        del sender.refusals[robot]


def has_ended(summary: RolloutSummary) -> bool:
    """Return True if there is nothing more to be followed, until an operator or a robot comes."""
    done = (*rolloutshow.DONE_STATES, *FAILURES)
    is_open = any(count for state, count in summary.counts.items() if state not in done)
    # One that has settled without open robots is about to have succeeded.
    return summary.phase in ENDS and (summary.phase != "settled" or is_open)


async def _until_back(targets: Targets, display: Display) -> None:
    """Wait until a coordinator answers again, and report which one."""
    from dorad.control.asyncclient import AsyncClient
    from dorad.control.errors import ControlError

    while True:
        await asyncio.sleep(RECONNECT_S)
        try:
            async with AsyncClient(targets) as client:
                display.report(f"{client.server.name} answers")
                return
        except ControlError as error:
            if error.code not in ("unavailable", "deadline"):
                raise


def run(
    targets: Targets, number: int, sender: Sender, *, as_json: bool, good: frozenset[str]
) -> int:
    """Follow a rollout; return 0 if it ends in one of the `good` phases, 1 if in another one.

    One that has settled has not ended well if robots have failed.

    Ctrl-C ends only this command: the rollout continues.
    """
    with ExitStack() as stack:
        display = Display(sender, as_json=as_json)
        stack.enter_context(display.rows)
        try:
            summary = asyncio.run(follow(targets, number, sender, display))
        except KeyboardInterrupt:
            stack.close()
            click.echo(
                f"\nthe rollout continues without this command, which sends no more files:"
                f" the coordinator sends those that it has."
                f"\n  follow: dorafleet rollout follow {number}"
                f"\n  hold:   dorafleet rollout pause {number}"
                f"\n  end it: dorafleet rollout abort {number}",
                err=True,
            )
            raise
    if as_json:
        print_lines([{"event": "end", **plain(summary)}])
    else:
        for line in last_lines(summary):
            click.echo(visible(line))
    if summary.phase == "settled" and rolloutshow.has_failures(summary):
        return 1
    return 0 if summary.phase in good else 1


def last_lines(summary: RolloutSummary) -> list[str]:
    """Return how a rollout has ended, and what can be done."""
    number = summary.rollout
    status = f"`dorafleet rollout status {number}` shows each robot"
    match summary.phase:
        case "awaiting_promotion":
            return [f"the canaries are confirmed; continue: `dorafleet rollout promote {number}`"]
        case "settled" if summary.unreachable:
            count = f"{summary.unreachable} of {summary.size} robots"
            return [f"{count} could not be reached and follow later; {status}"]
        case "refused":
            return [f"no robot was changed; {status}. Mend the reason, and start it again"]
        case "failed" | "revert_incomplete":
            return [f"{status}; `dorafleet rollout undo {number}` brings back those that have it"]
        case "reverted" | "succeeded_partially" if rolloutshow.has_failures(summary):
            return [f"{status} with its evidence"]
    return []
