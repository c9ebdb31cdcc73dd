"""Build dataflow files in Python.

flow = DataflowBuilder()
image = flow.add_node("camera", path="camera.py").add_output("image")
flow.add_node("viewer", path="viewer.py").add_input("image", image, queue_size=1)
flow.to_yaml("dataflow.yml")
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

from dorad.dataflow.model import QueuePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dorad.dataflow.builderkeys import (
        DataflowKeys,
        Env,
        Inputs,
        MoreKeys,
        NodeKeys,
        Policy,
        SyncKeys,
    )


class DataflowBuilder:
    """A dataflow under construction. The `name` is for readers of the program, not in the file.

    Keyword arguments become keys of the dataflow besides `nodes`.
    """

    def __init__(self, name: str = "dora-dataflow", **keys: Unpack[DataflowKeys]) -> None:
        self.name = name
        self.config: dict[str, Any] = dict(keys)
        self.nodes: list[Node] = []

    def add_node(self, id: str, **kwargs: Unpack[NodeKeys]) -> Node:
        """Add a node; keyword arguments become keys of the node as they are."""
        node = Node(id, **kwargs)
        self.nodes.append(node)
        return node

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the dataflow file as plain values."""
        plain: dict[str, Any] = _plain(self.config)
        return {**plain, "nodes": [node.to_dict() for node in self.nodes]}

    @overload
    def to_yaml(self, path: None = None) -> str: ...

    @overload
    def to_yaml(self, path: str | os.PathLike[str]) -> None: ...

    def to_yaml(self, path: str | os.PathLike[str] | None = None) -> str | None:
        """Return the dataflow file's text; with a path, write it there and return None.

        Raises:
            TypeError: a file cannot hold one of the values.
            ValueError: an input receives from an operator that was not added to a node.
        """
        from dorad.dataflow.expand import dump

        text = dump(self.to_dict())
        if path is None:
            return text
        Path(path).write_text(text, encoding="utf-8")
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Output:
    """An output of a node or operator, as the source of an input; its text is `node/output`."""

    def __init__(self, node: Node | Operator, output_id: str) -> None:
        self.node = node
        self.output_id = output_id

    def __str__(self) -> str:
        """Return `node/output`, or `node/operator/output`.

        Raises:
            ValueError: the operator was not added to a node.
        """
        if isinstance(self.node, Node):
            return f"{self.node.id}/{self.output_id}"
        if self.node.node is None:
            raise ValueError(f"the operator {self.node.id!r} was not added to a node")
        return f"{self.node.node.id}/{self.node.id}/{self.output_id}"


class _Ports:
    """The inputs and outputs of a node or operator."""

    config: dict[str, Any]

    def add_input(
        self,
        input_id: str,
        source: str | Output,
        queue_size: int | None = None,
        queue_policy: Policy | QueuePolicy | None = None,
        *,
        input_timeout: float | None = None,
        latched: bool | None = None,
        max_rate_hz: float | None = None,
    ) -> Self:
        """Declare an input that receives from an output, a timer or log lines.

        Raises:
            ValueError: the policy is unknown, or a number is out of range.
        """
        if queue_policy is not None and queue_policy not in tuple(QueuePolicy):
            known = ", ".join(QueuePolicy)
            raise ValueError(f"queue_policy must be one of {known}, got {queue_policy!r}")
        if queue_size is not None and queue_size < 1:
            raise ValueError(f"queue_size must be at least 1, got {queue_size}")
        if queue_policy == QueuePolicy.LATEST and queue_size not in (None, 1):
            raise ValueError(f"queue_size must be 1 with queue_policy latest, got {queue_size}")
        if input_timeout is not None and not 0 <= input_timeout < math.inf:
            raise ValueError(f"input_timeout must be 0 or more seconds, got {input_timeout}")
        if max_rate_hz is not None and not 0 < max_rate_hz < math.inf:
            raise ValueError(f"max_rate_hz must be above 0, got {max_rate_hz}")
        entries = {
            "queue_size": queue_size,
            "queue_policy": queue_policy,
            "input_timeout": input_timeout,
            "latched": latched,
            "max_rate_hz": max_rate_hz,
        }
        options = {key: value for key, value in entries.items() if value is not None}
        inputs = dict(self.config.get("inputs") or {})
        inputs[input_id] = {"source": source, **options} if options else source
        self.config["inputs"] = inputs
        return self

    def _declare(self, output_id: str) -> None:
        outputs = list(self.config.get("outputs") or ())
        if output_id not in outputs:
            outputs.append(output_id)
        self.config["outputs"] = outputs


class Node(_Ports):
    """A node under construction; its setters return the node."""

    def __init__(self, id: str, **kwargs: Unpack[NodeKeys]) -> None:
        self.id = id
        self.config: dict[str, Any] = {"id": id, **kwargs}
        self.operators: list[Operator] = []

    def path(self, path: str | os.PathLike[str]) -> Self:
        """Set the executable or script."""
        return self._set(path=path)

    def args(self, args: str) -> Self:
        """Set the command-line arguments."""
        return self._set(args=args)

    def env(self, env: Env) -> Self:
        """Set the environment variables; `$NAME` in a value is replaced when the file is read."""
        return self._set(env=dict(env))

    def build(self, build_command: str) -> Self:
        """Set the build commands, one per line."""
        return self._set(build=build_command)

    def git(
        self, url: str, branch: str | None = None, tag: str | None = None, rev: str | None = None
    ) -> Self:
        """Set the repository that the node is built from."""
        return self._set(git=url, branch=branch, tag=tag, rev=rev)

    def params(self, params: Mapping[str, Any]) -> Self:
        """Declare parameters: a default, or a mapping with `type`, `default`, `min` and so on."""
        return self._set(params=dict(params))

    def sync(self, inputs: Sequence[str], tolerance_ms: float, name: str | None = None) -> Self:
        """Receive inputs together; call it once for each group."""
        group: SyncKeys = {"inputs": list(inputs), "tolerance_ms": tolerance_ms}
        if name is not None:
            group["name"] = name
        known = self.config.get("sync")
        before = list(known) if isinstance(known, list | tuple) else [known] if known else []
        return self._set(sync=[*before, group] if before else group)

    def set(self, **keys: Unpack[NodeKeys]) -> Self:
        """Set any keys of the node."""
        self.config.update(keys)
        return self

    def add_operator(self, operator: Operator) -> Self:
        """Add an operator.

        Raises:
            ValueError: it was added to another node.
        """
        if operator.node not in (None, self):
            raise ValueError(f"the operator {operator.id!r} was added to another node")
        operator.node = self
        self.operators.append(operator)
        return self

    def add_output(self, output_id: str) -> Output:
        """Declare an output, once, and return it."""
        self._declare(output_id)
        return Output(self, output_id)

    def to_dict(self) -> dict[str, Any]:
        """Return the node's entry in the dataflow file."""
        entry: dict[str, Any] = _plain(self.config)
        if self.operators:
            entry["operators"] = [operator.to_dict() for operator in self.operators]
        return entry

    def _set(self, **entries: Any) -> Self:
        self.config.update({key: value for key, value in entries.items() if value is not None})
        return self


class Operator(_Ports):
    """An operator, to be added to a node."""

    def __init__(
        self,
        id: str,
        name: str | None = None,
        description: str | None = None,
        build: str | None = None,
        python: str | os.PathLike[str] | None = None,
        shared_library: str | None = None,
        send_stdout_as: str | None = None,
        *,
        conda_env: str | None = None,
        wasm: str | None = None,
        inputs: Inputs | None = None,
        outputs: Sequence[str] | None = None,
        **keys: Unpack[MoreKeys],
    ) -> None:
        """Keyword arguments become keys of the operator; `conda_env` goes with `python`."""
        self.id = id
        self.node: Node | None = None
        entries = {
            "id": id,
            "name": name,
            "description": description,
            "build": build,
            "python": {"source": python, "conda_env": conda_env} if conda_env else python,
            "shared-library": shared_library,
            "wasm": wasm,
            "inputs": dict(inputs) if inputs else None,
            "outputs": list(outputs) if outputs else None,
            "send_stdout_as": send_stdout_as,
            **keys,
        }
        self.config = {key: value for key, value in entries.items() if value not in (None, "")}

    def add_output(self, output_id: str) -> Output:
        """Declare an output, once, and return it; `str()` of it needs the operator's node."""
        self._declare(output_id)
        return Output(self, output_id)

    def to_dict(self) -> dict[str, Any]:
        """Return the operator's entry in the dataflow file."""
        entry: dict[str, Any] = _plain(self.config)
        return entry


def _plain(value: Any) -> Any:
    """Return a value in the form that a file can hold."""
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Output):
        return str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "items"):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset | range):
        return [_plain(each) for each in value]
    raise TypeError(f"a dataflow file cannot hold {value!r}")
