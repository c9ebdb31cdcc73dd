"""Run a command in a release's folder as a node: as the user of nodes, never as the agent."""

import asyncio
import logging
import shlex
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from dorad.agent.assignments import queries
from dorad.agent.assignments.files import Bundle
from dorad.agent.daemon import Daemon
from dorad.control.asyncclient import AsyncClient
from dorad.control.errors import ControlError
from dorad.control.messages import (
    DATAFLOW_START,
    DATAFLOW_STOP,
    DATAFLOW_WAIT,
    DataflowState,
    Share,
    Start,
    Stop,
    Wait,
)
from dorad.control.messages.releases import Evidence

TIMEOUT_S = 30.0
"""For one command."""

MAX_TEXT = 500
"""Characters of an outcome."""

_NODE = "probe"

_log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """The results of commands, and when the last one ended."""

    at: float
    evidence: list[Evidence]

    @property
    def ok(self) -> bool:
        """Whether all have succeeded."""
        return all(each.ok for each in self.evidence)


class Commands:
    """The commands of one kind that dataflows run, with one task for each dataflow.

    A command that hangs delays no other dataflow, nor other observations of its own dataflow.
    """

    def __init__(self, daemon: Daemon, on_end: Callable[[str], None]) -> None:
        """`on_end` gets the name of a dataflow whose commands have ended."""
        self._daemon = daemon
        self._on_end = on_end
        self._running: set[str] = set()
        self._forgotten: set[str] = set()
        """Dataflows that were forgotten while their commands run."""
        self._outcomes: dict[str, Outcome] = {}

    def outcome(self, dataflow: str) -> Outcome | None:
        """Return the last outcome; None before the first one, and after `forget`."""
        return self._outcomes.get(dataflow)

    def is_running(self, dataflow: str) -> bool:
        """Return True while commands of a dataflow run, also forgotten ones."""
        return dataflow in self._running

    def forget(self, dataflow: str) -> None:
        """Forget the last outcome, and the one of commands that still run."""
        self._outcomes.pop(dataflow, None)
        self._forgotten |= self._running & {dataflow}

    def start(
        self,
        tasks: asyncio.TaskGroup,
        dataflow: str,
        owner: str,
        commands: Mapping[str, Sequence[str]],
        bundle: Bundle,
    ) -> None:
        """Run commands one after another, unless some of this dataflow run already.

        `owner` is the UUID of the dataflow; `commands` are by the names of their checks.
        """
        if dataflow not in self._running:
            self._running.add(dataflow)
            tasks.create_task(
                self._run(dataflow, owner, commands, bundle), name=f"commands of {dataflow}"
            )

    async def _run(
        self, dataflow: str, owner: str, commands: Mapping[str, Sequence[str]], bundle: Bundle
    ) -> None:
        evidence = []
        try:
            for check, words in commands.items():
                try:
                    client = await self._daemon.client()
                    text, ok = await _run_command(client, owner, check, words, bundle)
                except ControlError as error:
                    text, ok = f"cannot be run: {error.message}"[:MAX_TEXT], False
                _log.debug("%s of %s: %s", check, dataflow, text)
                evidence.append(Evidence(check=check, ok=ok, text=text))
        finally:
            self._running.remove(dataflow)
        if dataflow in self._forgotten:
            self._forgotten.remove(dataflow)
            _log.debug("the outcome of commands of %s came too late", dataflow)
        else:
            self._outcomes[dataflow] = Outcome(queries.clock(), evidence)
        self._on_end(dataflow)


async def _run_command(
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
    stop = Stop(dataflow=run, force=True)
    try:
        await client.call(DATAFLOW_START, _start(run, owner, words, bundle))
    except ControlError as error:
        if error.code == "exists":
            # An agent that has ended meanwhile has left it running.
            await client.call(DATAFLOW_STOP, stop)
        if error.code in ("exists", "unavailable", "busy", "deadline"):
            raise
        return f"cannot be started: {'; '.join(error.lines)}"[:MAX_TEXT], False
    try:
        wait = Wait(dataflow=run, timeout=TIMEOUT_S)
        state = await client.call(DATAFLOW_WAIT, wait)
    except ControlError as error:
        if error.code != "deadline":
            raise
        await client.call(DATAFLOW_STOP, stop)
        return f"did not end within {TIMEOUT_S:g} s", False
    except asyncio.CancelledError:
        _log.debug("%s of %s is left running", what, bundle.name)
        raise
    return _outcome(state)


def _start(run: str, owner: str, words: Sequence[str], bundle: Bundle) -> Start:
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
        user_of=owner,
    )


def _outcome(state: DataflowState) -> tuple[str, bool]:
    result = next((each for each in state.results if each.node == _NODE), None)
    if result is not None and result.code == 0:
        return "exited with 0", True
    lines = [line for failure in state.failures for line in failure.lines]
    reason = "did not run" if result is None else result.reason
    last = f": {lines[-1]}" if lines else ""
    return f"{reason}{last}"[:MAX_TEXT], False
