"""`sync` of a node: which of its inputs are received together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dorad.dataflow.errors import TextError
from dorad.dataflow.fields import Fields
from dorad.dataflow.ids import check_data_id
from dorad.dataflow.model import NodeOutput, QueuePolicy, Sync
from dorad.dataflow.nearest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from dorad.dataflow.document import Value
    from dorad.dataflow.model import Input

DEFAULT_NAME = "sync"
MOST_MS = 3_600_000.0
_WHAT = "a mapping with `inputs` and `tolerance_ms`"


def read_sync(node: Fields, inputs: Sequence[Input]) -> tuple[Sync, ...]:
    """One group, or a list of them; what does not fit is reported and left out."""
    value = node.take("sync")
    if value is None:
        return ()
    items = value.data if isinstance(value.data, list) else [value]
    groups: list[Sync] = []
    entries = node.take("inputs")
    written = entries.data.keys() if entries and isinstance(entries.data, dict) else ()
    names = dict.fromkeys(written, "an input")
    taken: dict[str, str] = {}
    for item in items:
        group = _read_group(Fields(item, node.problems, _WHAT), inputs, written, names, taken)
        if group is not None:
            groups.append(group)
    return tuple(groups)


def _read_group(
    body: Fields,
    inputs: Sequence[Input],
    written: Collection[str],
    names: dict[str, str],
    taken: dict[str, str],
) -> Sync | None:
    """`written` are the ids in the file; `names` says what has a name already, `taken` which group
    an input is in.
    """
    problems = body.problems
    name = DEFAULT_NAME
    if body.has("name"):
        name = body.checked("name", _name, DEFAULT_NAME)
    else:
        body.ignore("name")
    if name in names:
        problems.error_in_name(
            body.name_of("name"),
            f"`{name}` is the name of {names[name]} already",
            "give it a `name` of its own",
        )
    names.setdefault(name, "another group")
    tolerance = body.number("tolerance_ms", least=0.0, most=MOST_MS)
    if not body.has("tolerance_ms"):
        problems.error_in_name(
            body.owner, "needs `tolerance_ms`", "how far apart the messages may have been sent"
        )
    members = body.texts("inputs")
    if body.has("inputs") and len(members) < 2:
        problems.error_in_name(body.name_of("inputs"), "must name two inputs or more")
    elif not body.has("inputs"):
        problems.error_in_name(body.owner, "needs `inputs`", "a list of two or more")
    known = {found.id: found for found in inputs}
    for item in body.items("inputs"):
        # What is wrong with an input itself is reported already.
        if item.text in known or item.text not in written:
            _check_member(body, item, known, taken, name)
    body.finish()
    if tolerance is None or len(members) < 2:
        return None
    return Sync(name, members, round(tolerance * 1e6))


def _name(text: str) -> str:
    if not text:
        raise TextError("cannot be empty")
    check_data_id(text)
    return text


def _check_member(
    body: Fields, item: Value, known: dict[str, Input], taken: dict[str, str], group: str
) -> None:
    problems, name = body.problems, item.text
    if isinstance(item.data, dict | list):
        return
    if taken.setdefault(name, group) != group:
        problems.error(item, f"`{name}` is in the group `{taken[name]}` already")
    found = known.get(name)
    if found is None:
        problems.error(item, f"the node has no input `{name}`", did_you_mean(name, known))
        return
    if not isinstance(found.source, NodeOutput):
        problems.error(
            item, f"`{name}` receives `{found.source.text}`; only outputs of nodes are synchronised"
        )
    why = None
    if found.queue_policy is QueuePolicy.BACKPRESSURE:
        why = "have `queue_policy: backpressure`: what matches nothing is dropped"
    elif found.latched:
        why = "be `latched`: an old message matches nothing"
    elif found.max_rate_hz is not None:
        why = "have `max_rate_hz`: what it leaves out would match nothing"
    if why is not None:
        problems.error(item, f"the synchronised input `{name}` cannot {why}")
