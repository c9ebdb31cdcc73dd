"""Run a command in a release's folder as a node: as the user of nodes, never as the agent."""

from __future__ import annotations

import asyncio
import logging
import shlex
import uuid
from typing import TYPE_CHECKING

from dorad.control.errors import ControlError
from dorad.control.messages import DataflowState, Share, Start, Started, Stop, Wait
from dorad.control.messages.releases import Evidence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.agent.releases.library import Bundle
    from dorad.control.asyncclient import AsyncClient

TIMEOUT_S = 30.0
"""For one command."""

_NODE = "probe"

_log = logging.getLogger(__name__)


async def run_probes(
    client: AsyncClient, owner: str, commands: Sequence[Sequence[str]], bundle: Bundle
) -> list[Evidence]:
    """Run commands one after another, and return their outcomes.

    `owner` is the UUID of the dataflow. Raises ControlError if the daemon cannot be used.
    """
    found = []
    for number, words in enumerate(commands, start=1):
        text, ok = await run_command(client, owner, f"probe {number}", words, bundle)
        _log.debug("probe %d of %s: %s", number, bundle.name, text)
        found.append(Evidence(check=f"probe {number}", ok=ok, text=text))
    return found


async def run_command(
    client: AsyncClient, owner: str, what: str, words: Sequence[str], bundle: Bundle
) -> tuple[str, bool]:
    """Run a command as a dataflow with one node; return how it ended, and True for success.

    Raises:
        ControlError: the daemon cannot be used.
    """
    if not words:
        return "has no command", False
    # The same each time, so that the list of ended dataflows has it once.
    run = str(uuid.uuid5(uuid.UUID(owner), what))
    try:
        await client.call("dataflow.start", _start(run, words, bundle), Started)
    except ControlError as error:
        if error.code == "exists":
            await client.call("dataflow.stop", Stop(dataflow=run, force=True), DataflowState)
        if error.code in ("exists", "unavailable", "busy", "deadline"):
            raise
        return f"cannot be started: {'; '.join(error.lines)}"[:500], False
    try:
        wait = Wait(dataflow=run, timeout=TIMEOUT_S)
        state = await client.call("dataflow.wait", wait, DataflowState)
    except ControlError as error:
        if error.code != "deadline":
            raise
        await client.call("dataflow.stop", Stop(dataflow=run, force=True), DataflowState)
        return f"did not end within {TIMEOUT_S:g} s", False
    except asyncio.CancelledError:
        _log.debug("%s of %s is left running", what, bundle.name)
        raise
    return _outcome(state)


def _start(run: str, words: Sequence[str], bundle: Bundle) -> Start:
    node: dict[str, object] = {
        "id": _NODE,
        "path": words[0],
        "args": shlex.join(words[1:]),
        "deploy": {"working_dir": str(bundle.folder)},
    }
    environment = next(iter(bundle.environments.values()), None)
    if environment is not None:
        node["env"] = {"VIRTUAL_ENV": str(environment)}
    return Start(
        descriptor={"nodes": [node]},
        path=str(bundle.folder / "probe.yml"),
        uuid=run,
        share=Share(machine=_NODE, placement={_NODE: _NODE}),
    )


def _outcome(state: DataflowState) -> tuple[str, bool]:
    result = next((each for each in state.results if each.node == _NODE), None)
    if result is not None and result.code == 0:
        return "exited with 0", True
    lines = [line for failure in state.failures for line in failure.lines]
    reason = "did not run" if result is None else result.reason
    last = f": {lines[-1]}" if lines else ""
    return f"{reason}{last}"[:500], False
