"""Dataflow files made by a Python program.

flow = DataflowBuilder()
image = flow.add_node("camera", path="camera.py").add_output("image")
flow.add_node("viewer", path="viewer.py").add_input("image", image, queue_size=1)
flow.to_yaml("dataflow.yml")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dorad.dataflow.model import QueuePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType


class DataflowBuilder:
    """A dataflow under construction. The `name` is for the reader; the file has no place for it."""

    def __init__(self, name: str = "dora-dataflow") -> None:
        self.name = name
        self.nodes: list[Node] = []

    def add_node(self, id: str, **kwargs: Any) -> Node:  # noqa: A002 - dora's name for it
        """Add a node; keyword arguments become keys of the node as they are."""
        node = Node(id, **kwargs)
        self.nodes.append(node)
        return node

    def to_yaml(self, path: str | Path | None = None) -> str | None:
        """Return the dataflow file's text; with a path, write it there and return None."""
        import yaml

        content = {"nodes": [node.to_dict() for node in self.nodes]}
        text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        if path is None:
            return text
        Path(path).write_text(text, encoding="utf-8")
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class Output:
    """An output of a node, as the source of an input; its text is `node/output`."""

    def __init__(self, node: Node, output_id: str) -> None:
        self.node = node
        self.output_id = output_id

    def __str__(self) -> str:
        return f"{self.node.id}/{self.output_id}"


class Node:
    """A node under construction; all setters return it."""

    def __init__(self, id: str, **kwargs: Any) -> None:  # noqa: A002 - dora's name for it
        self.id = id
        self.config: dict[str, Any] = {"id": id, **kwargs}
        self.operators: list[Operator] = []

    def path(self, path: str) -> Self:
        """Set the executable or script."""
        return self._set(path=path)

    def args(self, args: str) -> Self:
        """Set the command-line arguments."""
        return self._set(args=args)

    def env(self, env: Mapping[str, Any]) -> Self:
        """Set the environment variables."""
        return self._set(env=dict(env))

    def build(self, build_command: str) -> Self:
        """Set the build commands, one a line."""
        return self._set(build=build_command)

    def git(
        self, url: str, branch: str | None = None, tag: str | None = None, rev: str | None = None
    ) -> Self:
        """Set the repository that the node is built from."""
        return self._set(git=url, branch=branch, tag=tag, rev=rev)

    def add_operator(self, operator: Operator) -> Self:
        """Add an operator."""
        self.operators.append(operator)
        return self

    def add_output(self, output_id: str) -> Output:
        """Declare an output, once, and return it."""
        outputs = self.config.setdefault("outputs", [])
        if output_id not in outputs:
            outputs.append(output_id)
        return Output(self, output_id)

    def add_input(
        self,
        input_id: str,
        source: str | Output,
        queue_size: int | None = None,
        queue_policy: str | None = None,
    ) -> Self:
        """Declare an input that is fed by an output or a timer.

        Raises:
            ValueError: the policy is unknown, or the queue has no place.
        """
        if queue_policy is not None and queue_policy not in tuple(QueuePolicy):
            known = ", ".join(QueuePolicy)
            raise ValueError(f"queue_policy must be one of {known}, got {queue_policy!r}")
        if queue_size is not None and queue_size < 1:
            raise ValueError(f"queue_size must be at least 1, got {queue_size}")
        options: dict[str, Any] = {}
        if queue_size is not None:
            options["queue_size"] = queue_size
        if queue_policy is not None:
            options["queue_policy"] = str(queue_policy)
        text = str(source)
        self.config.setdefault("inputs", {})[input_id] = (
            {"source": text, **options} if options else text
        )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the node's entry in the dataflow file."""
        entry = dict(self.config)
        if self.operators:
            entry["operators"] = [operator.to_dict() for operator in self.operators]
        return entry

    def _set(self, **entries: Any) -> Self:
        self.config.update({key: value for key, value in entries.items() if value is not None})
        return self


class Operator:
    """An operator, to be added to a node; it has no inputs and outputs of its own here."""

    def __init__(
        self,
        id: str,  # noqa: A002 - dora's name for it
        name: str | None = None,
        description: str | None = None,
        build: str | None = None,
        python: str | None = None,
        shared_library: str | None = None,
        send_stdout_as: str | None = None,
    ) -> None:
        self.id = id
        entries = {
            "id": id,
            "name": name,
            "description": description,
            "build": build,
            "python": python,
            "shared-library": shared_library,
            "send_stdout_as": send_stdout_as,
        }
        self.config = {key: value for key, value in entries.items() if value}

    def to_dict(self) -> dict[str, Any]:
        """Return the operator's entry in the dataflow file."""
        return dict(self.config)
