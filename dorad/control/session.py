"""The server's side of one connection: the handshake, the client's calls and its streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, cast, overload

from websockets.exceptions import ConnectionClosed

from dorad.control import codec
from dorad.control.errors import ControlError, as_message
from dorad.control.limits import MAX_REPLY, Held, Limits, Usage
from dorad.control.messages import (
    PROTOCOL,
    AnyMethod,
    CallMethod,
    FrameMethod,
    Hello,
    MethodTable,
    Nothing,
    Reply,
    Request,
    StreamMethod,
    Struct,
    TopicHeader,
    Welcome,
)
from dorad.problems import ProblemError

if TYPE_CHECKING:
    from websockets.asyncio.connection import Connection

    from dorad.control.messages.method import P, R
    from dorad.control.peer import Peer

_log = logging.getLogger(__name__)

S = TypeVar("S")
F = TypeVar("F", bound=Callable[..., Any])

_HANDLES = "__handles__"
"""The attribute of a function that has the names of the methods that it handles."""

_HELLO_WAITS = 10
_POLICY_VIOLATION = 1008


@dataclass(frozen=True, slots=True)
class Call:
    """The context of a request that a handler gets besides the parameters."""

    id: int
    method: str
    peer: Peer
    client: str
    """The client's name from the handshake."""


Event: TypeAlias = "Struct | tuple[TopicHeader, bytes | memoryview]"
Handler: TypeAlias = Callable[[Call, Any], Awaitable[Struct]]
StreamHandler: TypeAlias = Callable[[Call, Any], AsyncIterator[Event]]
"""An async generator function. It resumes once its last event is being sent, and is closed when the
client cancels, disconnects or is too slow."""


CallHandler: TypeAlias = "Callable[[S, Call, P], Coroutine[Any, Any, R]]"
EventHandler: TypeAlias = "Callable[[S, Call, P], AsyncIterator[R]]"
FrameHandler: TypeAlias = "Callable[[S, Call, P], AsyncIterator[tuple[R, bytes | memoryview]]]"


@overload
def handles(
    method: CallMethod[P, R],
) -> Callable[[CallHandler[S, P, R]], CallHandler[S, P, R]]: ...
@overload
def handles(
    method: StreamMethod[P, R],
) -> Callable[[EventHandler[S, P, R]], EventHandler[S, P, R]]: ...
@overload
def handles(
    method: FrameMethod[P, R],
) -> Callable[[FrameHandler[S, P, R]], FrameHandler[S, P, R]]: ...
def handles(method: AnyMethod) -> Callable[[F], F]:
    """Let a function of an object handle a method. It takes and returns what that declares."""

    def mark(function: F) -> F:
        vars(function).setdefault(_HANDLES, []).append(method.name)
        return function

    return mark


class HandlerTable(dict[str, "Handler | StreamHandler"]):
    """The handlers of methods, by name."""

    @classmethod
    def of(cls, *objects: object) -> Self:
        """Return what the functions of these objects handle.

        Raises:
            ValueError: two of them handle one method.
        """
        table = cls()
        for each in objects:
            for name, function in vars(type(each)).items():
                for method in getattr(function, _HANDLES, ()):
                    table._put(method, getattr(each, name))
        return table

    def include(self, *tables: Mapping[str, Handler | StreamHandler]) -> None:
        """Add the handlers of other tables."""
        for table in tables:
            for name, handler in table.items():
                self._put(name, handler)

    def _put(self, name: str, handler: Any) -> None:
        if name in self:
            raise ValueError(f"there are two handlers of `{name}`")
        self[name] = handler


class _DisconnectedError(Exception):
    """The client has disconnected."""


class ClientSession:
    """Runs the calls and streams of one client."""

    def __init__(
        self,
        connection: Connection,
        peer: Peer,
        handlers: Mapping[str, Handler | StreamHandler],
        methods: MethodTable,
        program: str,
        limits: Limits,
        usage: Usage | None = None,
    ) -> None:
        """`methods` are those that the protocol has; `program` is the server's name and version.

        Either side may have opened the connection. `usage` is that of all clients of the server.
        """
        self._connection = connection
        self._peer = peer
        self._handlers = handlers
        self._methods = methods
        self._program = program
        self._name = program.partition(" ")[0]
        self._limits = limits
        self._usage = Usage() if usage is None else usage
        self._client = ""
        self._running: dict[int, asyncio.Task[None]] = {}
        self._streams: set[int] = set()
        self._cancelled: set[int] = set()

    async def run(self) -> ControlError | None:
        """Answer the client until its connection ends, then cancel its calls and streams.

        Return why the client was refused; None if it was not.
        """
        try:
            refusal = await self._shake_hands()
            if refusal is not None:
                return refusal
            async with asyncio.TaskGroup() as tasks:
                try:
                    async for frame in self._connection:
                        await self._take(frame, tasks)
                finally:
                    for id_, task in self._running.items():
                        # A second cancellation would interrupt the clean-up of the first.
                        if id_ not in self._cancelled:
                            task.cancel()
        except* (ConnectionClosed, _DisconnectedError):
            pass
        return None

    async def _shake_hands(self) -> ControlError | None:
        try:
            frame = await self._first_frame()
            self._client = _check_hello(frame, self._name)
            _log.debug("%s introduces itself as %.80r", self._peer, self._client)
        except TimeoutError:
            error = ControlError("deadline", f"no `hello` arrived within {self._limits.hello:g} s")
        except ControlError as refusal:
            error = refusal
        else:
            welcome = Welcome(welcome=self._program, role=self._peer.role)
            await self._send(codec.encode(welcome))
            return None
        await self._send(codec.encode(Reply(id=None, error=as_message(error))))
        await self._connection.close(_POLICY_VIOLATION, "no valid hello")
        return error

    async def _first_frame(self) -> str | bytes:
        """Return the client's first frame. Raises TimeoutError.

        In short waits: if this process stands still for long, one of them ends, and a frame that
        has arrived meanwhile is read by the next.
        """
        wait = self._limits.hello / _HELLO_WAITS
        for _ in range(_HELLO_WAITS - 1):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    return await self._connection.recv()
        async with asyncio.timeout(wait):
            return await self._connection.recv()

    async def _take(self, frame: str | bytes, tasks: asyncio.TaskGroup) -> None:
        """Start the request in a frame, or answer with the error that prevents it."""
        id_: int | None = None
        try:
            request = _read_request(frame)
            if request.id in self._running:
                raise ControlError("bad-request", f"the id {request.id} is in use")
            id_ = request.id
            if request.method == "cancel":
                await self._cancel(request)
            else:
                self._start(request, tasks)
                # Let the task start: one cancelled before its first step would not clean up.
                await asyncio.sleep(0)
        except ControlError as error:
            if id_ is None and isinstance(frame, str):
                id_ = codec.id_of(frame)
            # A running request's id would make this look like its answer.
            answered = None if id_ in self._running else id_
            await self._finish(Reply(id=answered, error=as_message(error)))

    async def _cancel(self, request: Request) -> None:
        id_ = codec.decode_params(codec.CANCEL, request.params).id
        task = self._running.get(id_)
        # A request that has ended meanwhile is not an error: the client could not know.
        _log.debug("%s cancels %d", self._peer, id_)
        if task is not None and id_ not in self._cancelled:
            self._cancelled.add(id_)
            task.cancel()
        await self._finish(Reply(id=request.id, result=Nothing()))

    def _start(self, request: Request, tasks: asyncio.TaskGroup) -> None:
        method = self._methods.get(request.method)
        if method is None:
            raise codec.unknown_method(request.method, self._methods)
        handler = self._handlers.get(request.method)
        if handler is None:
            raise ControlError(
                "unsupported", f"this {self._name} does not support `{request.method}`"
            )
        params = codec.decode_params(method, request.params)
        self._check_room(stream=method.stream)
        call = Call(request.id, request.method, self._peer, self._client)
        _log.debug("%s starts request %d: %s", self._peer, call.id, call.method)
        if method.stream:
            self._streams.add(request.id)
            work = self._run_stream(call, cast("StreamHandler", handler), params)
        else:
            work = self._run_call(call, method, cast("Handler", handler), params)
        counts = self._usage.streams if method.stream else self._usage.calls
        held = Held(counts, self._peer.owner)
        task = self._running[request.id] = tasks.create_task(self._run(call, work, held))
        # Also one that is cancelled before its first step.
        task.add_done_callback(lambda _: held.release())

    def _check_room(self, *, stream: bool) -> None:
        """Check that one more stream, or one more call, may run. Raises ControlError."""
        limits, owner = self._limits, self._peer.owner
        if stream:
            kind, running, maximum = "streams", len(self._streams), limits.streams
            of_all, each = self._usage.streams[owner], limits.streams_each
        else:
            kind, maximum = "calls", limits.calls
            running = len(self._running) - len(self._streams)
            of_all, each = self._usage.calls[owner], limits.calls_each
        if running >= maximum:
            raise ControlError(
                "busy",
                f"this client has {maximum} running {kind}, the maximum",
                "wait until some of them have ended",
            )
        if each is not None and of_all >= each:
            raise ControlError(
                "busy",
                f"`{self._peer}` has {each} running {kind}, the maximum for one name",
                "wait until some of them have ended",
            )

    async def _run(self, call: Call, work: Awaitable[Reply], held: Held) -> None:
        """Run a call or a stream to its end, and send its last reply."""
        try:
            reply = await work
        except _DisconnectedError:
            return
        except asyncio.CancelledError:
            if call.id not in self._cancelled:
                raise
            reply = self._cancelled_reply(call.id)
        except ProblemError as error:
            reply = Reply(id=call.id, error=as_message(error))
            _forget(error)
        except Exception as fault:  # noqa: BLE001 - a fault in one handler must not end the others
            reply = _internal(call.id, f"`{call.method}` failed because of a bug in dorad", fault)
            _forget(fault)
        finally:
            self._running.pop(call.id, None)
            self._streams.discard(call.id)
            self._cancelled.discard(call.id)
            held.release()
        await self._finish(reply)

    def _cancelled_reply(self, id_: int) -> Reply:
        if id_ in self._streams:
            return Reply(id=id_, end=True)
        return Reply(id=id_, error=as_message(ControlError("cancelled", "the client cancelled it")))

    async def _run_call(
        self, call: Call, method: AnyMethod, handler: Handler, params: Struct
    ) -> Reply:
        seconds = method.time_allowed(params, self._limits.call)
        try:
            async with asyncio.timeout(seconds) as clock:
                return Reply(id=call.id, result=await handler(call, params))
        except TimeoutError:
            if not clock.expired():
                raise
        raise ControlError("deadline", f"`{call.method}` did not finish within {seconds:g} s")

    async def _run_stream(self, call: Call, handler: StreamHandler, params: Struct) -> Reply:
        events = cast("AsyncGenerator[Event, None]", handler(call, params))
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Struct):
                    reply = Reply(id=call.id, event=event)
                    await self._send(codec.encode_reply(reply, self._limits.reply))
                else:
                    await self._send_data(*event)
                # A handler that yields without ever waiting must not keep other tasks from running.
                await asyncio.sleep(0)
        return Reply(id=call.id, end=True)

    async def _send_data(self, header: TopicHeader, payload: bytes | memoryview) -> None:
        frame = codec.encode_data(header, payload)
        if len(frame) > self._limits.reply:
            size, limit = len(payload), self._limits.reply
            raise ControlError(
                "too-large",
                f"a message of {header.topic} has {size} bytes; {limit} are allowed here",
                "ask the daemon of that machine" if limit < MAX_REPLY else None,
            )
        await self._send(frame, text=False)

    async def _send(self, frame: bytes, *, text: bool = True) -> None:
        """Send a frame; wait while the client is far behind with reading.

        Each call and stream has at most one frame waiting, which bounds the memory that a client
        can take up by not reading.

        Raises:
            ControlError: with code `too-slow`. The frame may still arrive.
            _DisconnectedError: the client has disconnected.
        """
        try:
            async with asyncio.timeout(self._limits.slow):
                await self._connection.send(frame, text=text)
        except TimeoutError:
            raise ControlError(
                "too-slow",
                f"the client did not read for {self._limits.slow:g} s",
                "read faster, or request less",
            ) from None
        except ConnectionClosed:
            raise _DisconnectedError from None

    async def _finish(self, reply: Reply) -> None:
        """Send the last reply to a request; disconnect a client that does not read it."""
        outcome = "done" if reply.error is None else reply.error.code
        _log.debug("%s, request %s: %s", self._peer, reply.id, outcome)
        try:
            frame = codec.encode_reply(reply, self._limits.reply)
        except ControlError as error:
            frame = codec.encode(Reply(id=reply.id, error=as_message(error)))
        except (TypeError, ValueError) as fault:
            frame = codec.encode(_internal(reply.id, "its result cannot be written as JSON", fault))
        try:
            await self._send(frame)
        except ControlError:
            self._connection.transport.abort()
        except _DisconnectedError:
            return


def _read_request(frame: str | bytes) -> Request:
    if isinstance(frame, bytes):
        raise ControlError("bad-request", "only the server sends binary frames")
    return codec.decode_request(frame)


def _forget(error: BaseException) -> None:
    """Release what an error still refers to: the locals of all functions that it has passed.

    One of them is often the error itself. Then mapped memory, say, would stay until the garbage
    collector runs, which an idle daemon does not do for hours.
    """
    known: BaseException | None = error
    while known is not None:
        clear_frames(known.__traceback__)
        known = known.__cause__ or known.__context__


def _internal(id_: int | None, message: str, fault: Exception) -> Reply:
    _log.error("request %s: %s", id_, message, exc_info=fault)
    error = ControlError("internal", message, "please report it with the details in dorad's log")
    return Reply(id=id_, error=as_message(error))


def _check_hello(frame: str | bytes, server: str) -> str:
    """Return the client's name; `server` is the name of this program.

    Raises:
        ControlError: the frame is not a `hello`, or the client speaks another version.
    """
    if isinstance(frame, bytes):
        raise ControlError("bad-request", "the first frame must be text: `hello`")
    hello = codec.decode(frame, Hello, "`hello`")
    if hello.protocol != PROTOCOL:
        newer, older = ("client", server) if hello.protocol > PROTOCOL else (server, "client")
        raise ControlError(
            "version",
            f"this {server} speaks version {PROTOCOL} of the control protocol, the client "
            f"({hello.hello}) version {hello.protocol}: the {older} is older than the {newer}",
            "install the same version of both, and restart what was upgraded"
            + (": `dora down`, `dora up`" if server == "dorad" else ""),
        )
    return hello.hello
