"""The `sync` key of a node: inputs that it receives together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields
from dorad.dataflow.ids import check_data_id
from dorad.dataflow.model import Input, NodeOutput, QueuePolicy, Sync
from dorad.dataflow.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dorad.dataflow.value import Value

DEFAULT_NAME = "sync"
MAX_MS = 3_600_000.0
_NEEDED = {
    "inputs": "a list of two or more",
    "tolerance_ms": "how far apart the messages may have been sent",
}
_WHAT = "a mapping with `inputs` and `tolerance_ms`"


def read_sync(node: Fields, inputs: Sequence[Input]) -> tuple[Sync, ...]:
    """Return the groups in `sync`, which is one group or a list; report and skip wrong ones."""
    value = node.take("sync")
    if value is None:
        return ()
    reader = _Reader(node, inputs)
    items = value.data if isinstance(value.data, list) else [value]
    return tuple(group for item in items if (group := reader.read(item)) is not None)


class _Reader:
    """A reader of the groups of one node; it remembers which inputs and names are taken."""

    def __init__(self, node: Fields, inputs: Sequence[Input]) -> None:
        entries = node.take("inputs")
        self._problems = node.problems
        self._inputs = {entry.id: entry for entry in inputs}
        self._written = entries.data.keys() if entries and isinstance(entries.data, dict) else ()
        self._names = dict.fromkeys(self._written, "an input")
        self._taken: dict[str, str] = {}
        """The group of each input that is already in one."""

    def read(self, item: Value) -> Sync | None:
        body = Fields(item, self._problems, _WHAT)
        if not isinstance(item.data, dict):
            return None
        name = body.checked("name", _name, DEFAULT_NAME)
        if name in self._names:
            self._problems.error_in_name(
                body.name_of("name"),
                f"`{name}` is already the name of {self._names[name]}",
                "give it its own `name`",
            )
        self._names.setdefault(name, "another group")
        tolerance = body.number("tolerance_ms", minimum=0.0, maximum=MAX_MS)
        members = body.texts("inputs")
        misspelt = body.finish()
        for key, hint in _NEEDED.items():
            if not body.has(key) and key not in misspelt:
                self._problems.error_in_name(item, f"needs `{key}`", hint)
        written = body.take("inputs")
        if written is not None and isinstance(written.data, list):
            if len(members) < 2:
                self._problems.error_in_name(written, "must name two inputs or more")
            for each in written.data:
                # A wrong input itself was reported where it is declared.
                if each.text in self._inputs or each.text not in self._written:
                    self._check_member(each)
        self._taken |= dict.fromkeys(members, name)
        return None if tolerance is None else Sync(name, members, round(tolerance * 1e6))

    def _check_member(self, item: Value) -> None:
        if isinstance(item.data, dict | list):
            return
        name = item.text
        if name in self._taken:
            self._problems.error(item, f"`{name}` is already in the group `{self._taken[name]}`")
        entry = self._inputs.get(name)
        if entry is None:
            hint = did_you_mean(name, self._inputs)
            self._problems.error(item, f"the node has no input `{name}`", hint)
            return
        if not isinstance(entry.source, NodeOutput):
            source = entry.source.text
            self._problems.error(
                item, f"`{name}` receives `{source}`; only outputs of nodes are synchronised"
            )
        why = None
        if entry.queue_policy is QueuePolicy.BACKPRESSURE:
            why = "have `queue_policy: backpressure`: messages without a match are dropped"
        elif entry.latched:
            why = "be `latched`: an old message has no match"
        elif entry.max_rate_hz is not None:
            why = "have `max_rate_hz`: it would drop messages that others need as a match"
        if why is not None:
            self._problems.error(item, f"the synchronised input `{name}` cannot {why}")


def _name(text: str) -> str:
    if not text:
        raise TextError("cannot be empty")
    check_data_id(text)
    return text
