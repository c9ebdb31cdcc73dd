"""A node without a dataflow, on a terminal: the user types its inputs and sees its outputs.

Prompts go to stderr and outputs to stdout, so that outputs can be piped.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from dorad.node import events
from dorad.node.clock import Clock, as_datetime
from dorad.node.offline.filemode import LocalAttachment, LocalSender, WellFormed

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from dorad.node.events import Event

NODE_ID = "interactive"

_TERMINAL = 0
_INTRODUCTION = """\
This node is not part of a dataflow: type its inputs.
Data is JSON or plain text, HEX:00ff for bytes, or FILE:path of an Arrow file with one column.
Ctrl-D instead of data sends none."""

_monotonic = time.monotonic


class InteractiveAttachment(LocalAttachment):
    """The attachment of a `Node` whose inputs a user types."""

    def __init__(self) -> None:
        super().__init__({"id": NODE_ID}, {})
        self.receiver = PromptReceiver(lambda: prompt(self.clock))
        self.sender = PrintingSender()
        _print(_INTRODUCTION)


class PromptReceiver:
    """A receiver that prompts for an event when one is requested.

    It prompts in a thread, so that timeouts and polling work while the user types.
    """

    def __init__(self, read_event: Callable[[], Event]) -> None:
        """`read_event` waits for the next event and returns it; STOP is the last one."""
        self._read_event = read_event
        self._changed = threading.Condition()
        self._waiting: deque[Event] = deque()
        self._futures: list[asyncio.Future[None]] = []
        self._prompting = False
        self._stopped = False

    @property
    def ended(self) -> bool:
        """True after the last event."""
        return self._stopped and not self._waiting

    def _take(self) -> Event | None:
        """Return a queued event, or None; then make sure that the user is being prompted."""
        if self._waiting:
            return self._waiting.popleft()
        if not self._prompting and not self._stopped:
            self._prompting = True
            threading.Thread(target=self._prompt, name="dorad-terminal", daemon=True).start()
        return None

    def _prompt(self) -> None:
        try:
            event = self._read_event()
        except OSError:
            # The terminal was closed: no more input can come.
            event = events.stop(events.MANUAL)
        with self._changed:
            self._waiting.append(event)
            self._prompting = False
            self._stopped = event["type"] == "STOP"
            self._changed.notify_all()
            futures, self._futures = self._futures, []
        for future in futures:
            # A loop that was closed meanwhile has no waiting task.
            with contextlib.suppress(RuntimeError):
                future.get_loop().call_soon_threadsafe(_resolve, future)

    def try_recv(self) -> Event | None:
        """Return the next event if one is queued, else None."""
        with self._changed:
            return self._take()

    def next(self, timeout: float | None) -> Event | None:
        """Wait for the next event and return it, None after the last. `timeout` in seconds."""
        deadline = None if timeout is None else _monotonic() + timeout
        with self._changed:
            while (event := self._take()) is None and not self.ended:
                left = None if deadline is None else deadline - _monotonic()
                if left is not None and left <= 0:
                    return events.timed_out(timeout or 0.0)
                self._changed.wait(left)
            return event

    async def recv_async(self, timeout: float | None) -> Event | None:
        """Wait for the next event without blocking the event loop."""
        import asyncio

        deadline = None if timeout is None else _monotonic() + timeout
        while True:
            with self._changed:
                event = self._take()
                if event is not None or self.ended:
                    return event
                future = asyncio.get_running_loop().create_future()
                self._futures.append(future)
            left = None if deadline is None else deadline - _monotonic()
            try:
                await asyncio.wait_for(future, left)
            except TimeoutError:
                return events.timed_out(timeout or 0.0)

    def drain(self) -> list[Event]:
        """Return all queued events.

        Raises:
            RuntimeError: the last event was already received.
        """
        with self._changed:
            if self.ended:
                raise RuntimeError("the event stream is closed")
            event = self._take()
            return [] if event is None else [event]

    def is_empty(self) -> bool:
        """Return True if `try_recv` would return None."""
        with self._changed:
            event = self._take()
            if event is not None:
                self._waiting.appendleft(event)
            return event is None


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class PrintingSender(LocalSender):
    """Prints outputs."""

    def _put(self, output: str, array: Any) -> None:
        shown = array.to_string(window=5, container_window=5, skip_new_lines=True)
        print(f"output {output}: {shown} ({array.type})", flush=True)


def prompt(clock: Clock) -> Event:
    """Prompt for an input and return its event, or STOP if the user enters none.

    Raises:
        OSError: the terminal was closed.
    """
    while True:
        typed = _read_line("Input id (none to stop): ")
        if typed is None or not typed.strip():
            return events.stop(events.MANUAL)
        input_id = typed.strip()
        if input_id in WellFormed():
            break
        _print(f"{input_id!r} is not a valid input id: use letters, digits and _ . - /")
    while True:
        text = _read_line("Data: ")
        stamp = as_datetime(clock.now())
        if text is None:
            return events.tick(input_id, {"timestamp": stamp})
        try:
            value = parse(text)
        except ValueError as error:
            _print(str(error))
            continue
        metadata = {"timestamp": stamp}
        return {
            "kind": "dora",
            "type": "INPUT",
            "id": input_id,
            "value": value,
            "metadata": metadata,
        }


def parse(text: str) -> Any:
    """Return typed data as an Arrow array; text that is not JSON is a string.

    A JSON value becomes an array of one element, as in dora: `[1, 2]` is one list.

    Raises:
        ValueError: it cannot be converted; the text gives the reason.
    """
    import pyarrow as pa

    from dorad.node.offline.arrowjson import from_json

    if text.startswith("HEX:"):
        try:
            return pa.array(bytes.fromhex(text[4:]), pa.uint8())
        except ValueError as error:
            raise ValueError(
                f"HEX: must be followed by pairs of hexadecimal digits: {error}"
            ) from error
    if text.startswith("FILE:"):
        return _column(text[5:].strip())
    try:
        value = json.loads(text)
    except ValueError:
        return pa.array([text])
    return from_json([value])


def _column(path: str) -> Any:
    import pyarrow as pa

    try:
        with pa.memory_map(path) as source:
            table = pa.ipc.open_file(source).read_all()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path} cannot be read as an Arrow file: {error}") from error
    if table.num_columns != 1:
        raise ValueError(f"{path} must have one column, and has {table.column_names}")
    column = table.column(0).combine_chunks()
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _print(text: str, end: str = "\n") -> None:
    print(text, end=end, file=sys.stderr, flush=True)


def _read_line(text: str) -> str | None:
    """Return a typed line, None for Ctrl-D on an empty line.

    `input` would hold the lock of stdin while it waits, so that the interpreter could not exit.

    Raises:
        OSError: the terminal was closed.
    """
    _print(text, end="")
    typed = b""
    while not typed.endswith(b"\n"):
        part = os.read(_TERMINAL, 4096)
        if not part:
            _print("")
            return typed.decode(errors="replace") if typed else None
        typed += part
    return typed[:-1].decode(errors="replace")
