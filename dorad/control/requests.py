"""Requests of clients, and how a function that makes one becomes a method of both of them.

`Client` returns the result of the request, `AsyncClient` a coroutine that does.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from dorad.control.pending import checked_as

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from dorad.control import messages as m
    from dorad.control.asyncclient import AsyncClient
    from dorad.control.asyncstream import AsyncStream
    from dorad.control.client import Client
    from dorad.control.messages.method import P, R
    from dorad.control.stream import Stream

A = ParamSpec("A")
T = TypeVar("T")


class Request(Generic[T]):
    """A call, or a stream: the method, its parameters, and what makes T of an answer."""

    @overload
    def __init__(self: Request[R], method: m.Method[P, R], params: P) -> None: ...
    @overload
    def __init__(
        self, method: m.FrameMethod[P, Any], params: P, convert: Callable[[Any], T]
    ) -> None: ...
    @overload
    def __init__(self, method: m.Method[P, R], params: P, convert: Callable[[R], T]) -> None: ...
    def __init__(self, method: Any, params: Any, convert: Callable[[Any], T] | None = None) -> None:
        self.method = method
        self.params = params
        self.convert: Callable[[Any], T] = convert or checked_as(method.result)


class Call(Generic[A, T]):
    """A method of a client that returns the result of a request."""

    reads_files = False

    def __init__(self, request: Callable[Concatenate[Any, A], Request[T]]) -> None:
        self.request = request

    @overload
    def __get__(self, client: Client, owner: Any) -> Callable[A, T]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: Any) -> Callable[A, Coroutine[Any, Any, T]]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: Any) -> Any:
        return self.request if client is None else partial(client.perform, self)


class FileCall(Call[A, T]):
    """One that reads files to make its request."""

    reads_files = True


class StreamCall(Generic[A, T]):
    """A method of a client that returns the stream that a request opens."""

    def __init__(self, request: Callable[Concatenate[Any, A], Request[T]]) -> None:
        self.request = request

    @overload
    def __get__(self, client: Client, owner: Any) -> Callable[A, Stream[T]]: ...
    @overload
    def __get__(self, client: AsyncClient, owner: Any) -> Callable[A, AsyncStream[T]]: ...
    def __get__(self, client: Client | AsyncClient | None, owner: Any) -> Any:
        return self.request if client is None else partial(client.open_stream, self)
