"""Arguments of any kind: each call of the API works, or raises an error that names the argument."""

import asyncio
import gc
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dora
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dorad.node import attach, attachment, logbridge, protocol
from dorad.node.extensions import OwnTable
from dorad.node.node import Node
from dorad.node.offline.testing import MockNode
from tests.node.fakedaemon import FakeDaemon, in_thread

KINDS: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 1 << 63, 1 << 70, 10**400, 0.0, -0.0, 0.001, -1.5),
    *(1e19, 1e300, float("nan"), float("inf"), 1j, "", "x", "out", "in", "a/b", "b//c", "/", "é"),
    *("\ud800", "x" * 2000, "info", b"", b"x", bytearray(b"x"), memoryview(b"x"), (), (1, 2), []),
    *([1], ["x"], [1, "x"], [None], {}, {1: 2}, {"a": 1}, {"a": None}, {"a": "\ud800"}, {"a": {}}),
    *({"a": 1 << 70}, {"a": float("nan")}, {"request_id": 5}, {"goal_id": []}, {"\ud800": 1}),
    *({(1, 2): 3}, set(), {1}, object(), object, len, print, Ellipsis, range(3), iter([1])),
    *(np.array([1]), np.float64(1.5), np.int64(3), np.array([object()]), pa.array([1])),
    *(pa.scalar(1), pa.table({"a": [1]}), pa.chunked_array([[1]]), pa.array([None]), Path("x")),
]

CYCLE: dict[str, Any] = {}
CYCLE["a"] = CYCLE
DEEP: Any = {}
for _ in range(100_000):
    DEEP = {"a": DEEP}
KINDS += [CYCLE, DEEP]

INSIDE = re.compile(
    r"object (is not (iterable|subscriptable|callable)|has no attribute|does not support)"
    r"|argument of type|unhashable|not supported between|unsupported operand|dictionary update"
    r"|positional argument|internal"
)
"""What Python says where an argument was used without a check."""

CALLS: dict[str, int] = {
    "next": 1,
    "send_output": 3,
    "send_output_raw": 3,
    "send_service_request": 3,
    "send_service_response": 3,
    "log": 4,
    "log_error": 1,
    "log_warn": 1,
    "log_info": 1,
    "log_debug": 1,
    "log_trace": 1,
    "extension_store": 3,
    "extension_load": 3,
    "extension_drop": 2,
    "drain_dropped_extension_keys": 1,
    "merge_external_events": 1,
    "try_recv": 0,
    "drain": 0,
    "is_empty": 0,
    "timestamp": 0,
}
"""Methods of dora's `Node`, with the number of their arguments."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose daemon answers nothing more; its extension table is its own."""
    daemon = FakeDaemon(tmp_path_factory.mktemp("daemon"), {"in": 10})
    with pytest.MonkeyPatch.context() as patch:
        config = {"node_id": "n", "daemon_socket": str(daemon.path)}
        patch.setenv(protocol.CONFIG, json.dumps(config))
        patch.setattr(logbridge, "bridge", lambda node_id: None)
        patch.setattr(gc, "freeze", lambda: None)
        # Not the node that this fixture has made before in the same process.
        patch.setattr(attachment, "_attached", {})
        with in_thread(daemon.start) as started:
            node = Node()
            started()
        node._extensions = OwnTable()
        yield node
    daemon.close()


def attempt(call: Callable[[], Any]) -> None:
    """Call; an error must be of the kinds that dora raises, and be about the argument."""
    try:
        call()
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        assert not isinstance(error, RecursionError)
        assert str(error)
        assert not INSIDE.search(str(error)), error


@pytest.mark.parametrize("method", CALLS)
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
@given(data=st.data())
def test_arguments_of_any_kind_work_or_are_named(node: Node, method: str, data: Any) -> None:
    values = [data.draw(st.sampled_from(KINDS)) for _ in range(CALLS[method])]
    if method == "next" and (values[0] is None or _is_long(values[0])):
        return  # it waits
    attempt(lambda: getattr(node, method)(*values))


def _is_long(timeout: Any) -> bool:
    try:
        return 1 < timeout < 2.0**64
    except (TypeError, ValueError):
        return False


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_a_wait_of_any_kind_of_seconds_waits_or_is_refused(node: Node, kind: int) -> None:
    timeout = KINDS[kind]
    if timeout is None or _is_long(timeout):
        return
    attempt(lambda: node.next(timeout=timeout))
    attempt(lambda: asyncio.run(node.recv_async(timeout=timeout)))


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_a_node_is_not_made_from_the_wrong_kinds(
    kind: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(protocol.CONFIG, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(attach, "CONNECT_TIMEOUT_S", 0.0)
    for arguments in ((KINDS[kind],), (KINDS[kind], 1), ("x", KINDS[kind]), (None, KINDS[kind])):
        with pytest.raises((TypeError, OverflowError, RuntimeError)) as caught:
            Node(*arguments)
        assert not INSIDE.search(str(caught.value)), arguments


@pytest.mark.parametrize("kind", range(len(KINDS)))
@pytest.mark.parametrize("call", [dora.run, dora.build])
def test_a_dataflow_is_not_run_from_the_wrong_kinds(
    call: Any, kind: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in ((KINDS[kind],), ("x.yml", KINDS[kind]), ("x.yml", None, KINDS[kind])):
        with pytest.raises((TypeError, ValueError, OverflowError, RuntimeError)) as caught:
            call(*arguments)
        assert not INSIDE.search(str(caught.value)), arguments


WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda node: node.log("info", 1), TypeError, "message must be a str, got int"),
    (lambda node: node.log(1, "m"), TypeError, "level must be a str, got int"),
    (lambda node: node.log("info", "m", 1), TypeError, "target must be str or None, got int"),
    (lambda node: node.log("info", "m", None, [1]), TypeError, "fields must be dict or None"),
    (lambda node: node.log_error(None), TypeError, "message must be a str, got NoneType"),
    (lambda node: node.next(timeout=1e300), ValueError, "invalid timeout of 1e.300 seconds"),
    (lambda node: node.next(timeout="1"), TypeError, "must be real number, not str"),
    (
        lambda node: node.send_service_response("out", pa.array([1]), None),
        TypeError,
        "metadata must be a dict, got NoneType",
    ),
    (
        lambda node: node.send_service_request("out", pa.array([1]), 1),
        TypeError,
        "metadata must be dict or None, got int",
    ),
    (lambda node: node.send_output([], b"x"), TypeError, "output_id must be a str, got list"),
    (lambda node: Node(5), TypeError, "node_id must be str or None, got int"),
    (lambda node: Node("a", "1"), TypeError, "daemon_port must be int or None, got str"),
    (lambda node: Node("a", 70000), OverflowError, "daemon_port must be from 0 to 65535"),
    (lambda node: Node(""), RuntimeError, "invalid node_id ''"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG)
def test_a_wrong_argument_is_named_with_what_is_accepted(
    node: Node, call: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call(node)


@pytest.mark.parametrize(("call", "error", "text"), WRONG)
def test_a_mock_refuses_what_the_node_refuses(
    call: Any, error: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(protocol.CONFIG, raising=False)
    with pytest.raises(error, match=text):
        call(MockNode([("in", pa.array([1]))]))
