"""Check messages against the types of inputs and outputs; imported only if one has a type.

The daemon sends the types as plain data, see `dorad.dataflow.types.runtime`. Outputs are checked if
the environment asks for it; the first message of each typed input is always checked.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dorad.node import logbridge
from dorad.node.inputs import RingInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dorad.node.clock import Clock
    from dorad.node.events import Event
    from dorad.node.sender import Sender
    from dorad.node.typeshapes import Shapes
    from dorad.shm.inlet import Inlet
    from dorad.shm.pool import Sample

_log = logging.getLogger(__name__)

VARIABLE = "DORA_RUNTIME_TYPE_CHECK"
WARN = ("1", "true", "warn")
OFF = ("", "0", "false", "off")

MAX_WARNINGS = 100
"""Maximum number of different warnings about one output or edge."""

CORRELATED = frozenset(("request_id", "goal_id", "goal_status"))
"""Messages with one of these are not checked, as in dora: a result may have another type."""


class TypeMismatchError(RuntimeError):
    """The data to send does not have the type of its output."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The checks that the environment asks for."""

    outputs: bool = False
    error: bool = False
    first: bool = False
    """On outputs, check only the first message instead of every one."""
    every_input: bool = False
    """On inputs, check every message instead of only the first."""
    correlated: bool = False
    """Also check messages of services and actions."""


def parse_setting(text: str) -> Setting:
    """Return the setting of the variable: words separated by commas.

    Raises:
        ValueError: a word is unknown.
    """
    words = [word.strip().lower() for word in text.split(",")]
    for word in words:
        if word not in (*WARN, *OFF, "error", "first", "every", "patterns"):
            raise ValueError(
                f"{VARIABLE}={text}: `{word}` is not understood; write `warn` or `error`, "
                "then perhaps `first` or `every`, and `patterns`: `error,first`"
            )
    if "first" in words and "every" in words:
        raise ValueError(f"{VARIABLE}={text}: `first` and `every` exclude each other")
    return Setting(
        outputs="error" in words or any(word in WARN for word in words),
        error="error" in words,
        first="first" in words,
        every_input="every" in words,
        correlated="patterns" in words,
    )


class TypeChecks:
    """The checks of one node."""

    def __init__(self, node_id: str, types: Mapping[str, Any]) -> None:
        """Take the types from the node's configuration and the setting from the environment.

        Raises:
            RuntimeError: the setting is not valid.
        """
        self._node = node_id
        self._inputs: Mapping[str, Any] = types["inputs"]
        self._outputs: Mapping[str, Any] = types["outputs"]
        try:
            self.setting = parse_setting(os.environ.get(VARIABLE, ""))
        except ValueError as error:
            raise RuntimeError(str(error)) from None
        _log.debug("type checks: %s", self.setting)

    def sender(self, sender: Sender) -> Sender | CheckingSender:
        """Return a checking sender if outputs are to be checked, else the sender itself."""
        if not self.setting.outputs or not self._outputs:
            return sender
        checks = {
            output: PortCheck(port, f"{self._node}/{output}", ", ".join(port["to"]), self.setting)
            for output, port in self._outputs.items()
        }
        return CheckingSender(sender, checks, self._node)

    def input(self, input_id: str, source: str | None, inlet: Inlet, clock: Clock) -> RingInput:
        """Return the object for one ring of an input, with checks if the input has a type."""
        check = self.check_of(input_id, source)
        if check is None:
            return RingInput(input_id, inlet, clock)
        return CheckedInput(input_id, inlet, clock, check, self._node)

    def check_of(self, input_id: str, source: str | None) -> PortCheck | None:
        """Return the check of messages from a source to an input, None if the input has no type."""
        port = self._inputs.get(input_id)
        if port is None:
            return None
        sender = port["from"] if source is None or port["from"].startswith(f"{source}/") else source
        return PortCheck(port, sender, f"{self._node}/{input_id}", self.setting)


class PortCheck:
    """The check of one output, or of one edge at its input."""

    def __init__(
        self, port: Mapping[str, Any], sender: str, receiver: str, setting: Setting
    ) -> None:
        self._port = port
        self._sender = sender
        self._receiver = receiver
        self.setting = setting
        self._shapes: Shapes | None = None
        self._warned: set[str] = set()

    def applies(self, metadata: Mapping[str, Any] | None) -> bool:
        """Return True if a message with this metadata is checked."""
        return self.setting.correlated or not metadata or CORRELATED.isdisjoint(metadata)

    def mismatch(self, data: Any) -> tuple[str, dict[str, str]] | None:
        """Return the mismatch of `data` as a text and as fields, or None."""
        shapes = self._shapes
        if shapes is None:
            from dorad.node.typeshapes import Shapes  # imports pyarrow

            shapes = self._shapes = Shapes(self._port["accepts"])
        wrong = shapes.mismatch(data)
        if wrong is None:
            return None
        field = f"field `{wrong.field}`: " if wrong.field else ""
        text = (
            f"{self._sender} -> {self._receiver or 'no receiver'}: not {self._port['type']}: "
            f"{field}expected {wrong.expected}, found {wrong.actual}"
        )
        parts = {
            "type": self._port["type"],
            "field": wrong.field,
            "expected": wrong.expected,
            "found": wrong.actual,
            "sender": self._sender,
            "receiver": self._receiver,
        }
        return text, parts

    def warn(self, node_id: str, wrong: tuple[str, dict[str, str]]) -> None:
        """Log a mismatch, each one only once."""
        text, parts = wrong
        if text not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(text)
            line = logbridge.line(node_id, "warn", f"type mismatch: {text}", "dora.types", parts)
            logbridge.emit(line)


class CheckedInput(RingInput):
    """A ring that feeds a typed input."""

    __slots__ = ("_check", "_every", "_node")

    def __init__(
        self, input_id: str, inlet: Inlet, clock: Clock, check: PortCheck, node_id: str
    ) -> None:
        super().__init__(input_id, inlet, clock)
        self._node = node_id
        self._every = check.setting.every_input
        self._check: PortCheck | None = check

    def take(self) -> Event | None:
        """Return the next event, or None; warn if its data has another type."""
        event = super().take()
        check = self._check
        if event is None or event["type"] != "INPUT":
            return event
        if check is not None and check.applies(event["metadata"]):
            wrong = check.mismatch(event["value"])
            if wrong is not None:
                check.warn(self._node, wrong)
            if not self._every:
                self._check = None
        return event


class CheckingSender:
    """A sender that checks its data. It has the methods of `Sender` that a node uses."""

    def __init__(self, sender: Sender, checks: dict[str, PortCheck], node_id: str) -> None:
        self._sender = sender
        self._checks = checks
        self._node = node_id
        self.pool = sender.pool

    def check(self, output: str, data: Any, metadata: Mapping[str, Any] | None) -> None:
        """Check data before it is sent. Raises TypeMismatchError as `send` does."""
        check = self._checks.get(output)
        if check is None or not check.applies(metadata):
            return
        wrong = check.mismatch(data)
        # A refused message is not sent, so the next one is still the first.
        if check.setting.first and (wrong is None or not check.setting.error):
            self._checks.pop(output, None)
        if wrong is None:
            return
        if check.setting.error:
            raise TypeMismatchError(f"type mismatch: {wrong[0]}")
        check.warn(self._node, wrong)

    def send(self, output: str, data: Any, metadata: dict[str, Any] | None) -> None:
        """See `Sender`. Also raises TypeMismatchError, if the environment asks for errors."""
        self.check(output, data, metadata)
        self._sender.send(output, data, metadata)

    def send_sample(
        self, output: str, sample: Sample, length: int, metadata: dict[str, Any] | None
    ) -> None:
        """See `Sender`; raises as `send` does."""
        self.check(output, b"", metadata)
        self._sender.send_sample(output, sample, length, metadata)

    def empty(self, shape: int | tuple[int, ...], dtype: Any) -> Any:
        """See `Sender`."""
        return self._sender.empty(shape, dtype)

    def take_sample(self, size: int) -> Sample:
        """See `Sender`."""
        return self._sender.take_sample(size)
