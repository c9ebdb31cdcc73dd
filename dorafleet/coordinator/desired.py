"""The desired state of each robot in the store, with every change in the audit."""

import string
from collections.abc import Callable
from typing import Any

import msgspec

from dorad.control.errors import ControlError
from dorad.dataflow.document import MAX_DEPTH
from dorad.dataflow.params import as_json
from dorad.phrases import shorten
from dorafleet.coordinator.audit import Head
from dorafleet.coordinator.messages import Desired, DesiredList, DesiredRef, DesiredSet
from dorafleet.coordinator.records import DESIRED, RobotAssignment, desired_key
from dorafleet.coordinator.storerecords import decoded
from dorafleet.coordinator.writer import Writer
from dorafleet.store.model import Entry, Store

OnSet = Callable[[str, str, RobotAssignment, int, Head], None]

MAX_NAME = 200
MAX_SHOWN = 200
"""Characters of a value in a message."""

_NAME = frozenset(string.ascii_letters + string.digits + "_.-")


class DesiredState:
    """Reads the desired state of robots, and changes that of releases."""

    def __init__(self, store: Store, writer: Writer, on_set: OnSet) -> None:
        """`on_set` is called with what was written."""
        self._store = store
        self._writer = writer
        self._on_set = on_set

    async def get(self, selected: DesiredRef) -> DesiredList:
        """Return the selected states. Raises ControlError for an invalid name."""
        prefix = DESIRED
        if selected.robot is not None:
            prefix = f"{DESIRED}{_checked(selected.robot, 'robot')}/"
        if selected.dataflow is not None:
            _checked(selected.dataflow, "dataflow")
        snapshot = await self._store.get(prefix)
        states = [self._desired(entry) for entry in snapshot.entries]
        return DesiredList(
            desired=[each for each in states if selected.dataflow in (None, each.dataflow)],
            revision=snapshot.revision,
        )

    async def set(self, wanted: DesiredSet, actor: dict[str, Any]) -> Desired:
        """Make a change and record it with its `actor`; setting the same content changes nothing.

        Raises:
            ControlError: with code `conflict` if `if_version` is not the version now.
            StoreError: the change may be too large, or the store cannot be written.
        """
        if _is_deeper(wanted.params, MAX_DEPTH):
            raise ControlError("bad-request", f"`params` is nested more than {MAX_DEPTH} deep")
        robot = _checked(wanted.robot, "robot")
        key = desired_key(robot, _checked(wanted.dataflow, "dataflow"))
        async with self._writer.changing:
            entries = (await self._store.get(key, limit=1)).entries
            now = self._desired(entries[0]) if entries and entries[0].key == key else None
            version = 0 if now is None else now.version
            if wanted.if_version != version:
                raise _conflict(wanted, now)
            if now is not None and now.uuid:
                raise ControlError(
                    "exists",
                    f"`{wanted.dataflow}` on `{robot}` belongs to a dataflow that was started",
                    f"`dora stop {wanted.dataflow}` ends it",
                )
            if now is not None and not _differences(wanted, now):
                return now
            generation = 1 if now is None else now.generation + 1
            content = RobotAssignment(generation, wanted.release, wanted.params, wanted.enabled)
            record = {
                **actor,
                "action": "desired.set",
                "robot": robot,
                "dataflow": wanted.dataflow,
                "content": {
                    "generation": generation,
                    "release": wanted.release,
                    "params": wanted.params,
                    "enabled": wanted.enabled,
                },
            }
            revision, head = await self._writer.commit(
                record, compares={key: version}, puts={key: msgspec.json.encode(content)}
            )
            self._on_set(robot, wanted.dataflow, content, revision, head)
        return _as_desired(robot, wanted.dataflow, content, revision)

    def _desired(self, entry: Entry) -> Desired:
        robot, _, dataflow = entry.key.removeprefix(DESIRED).partition("/")
        content = decoded(self._store, entry, RobotAssignment)
        return _as_desired(robot, dataflow, content, entry.version)


def _checked(name: str, what: str) -> str:
    """Return a name that can be a part of a key. Raises ControlError."""
    if not 0 < len(name) <= MAX_NAME or not _NAME.issuperset(name):
        raise ControlError(
            "bad-request",
            f"`{name[:MAX_NAME]}` is not the name of a {what}",
            "letters, digits, `_`, `-` and `.`",
        )
    return name


def _is_deeper(value: object, limit: int) -> bool:
    """Return True if lists and mappings are nested deeper than `limit`."""
    level = [value]
    for _ in range(limit + 1):
        inner: list[object] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        if not inner:
            return False
        level = inner
    return True


def _as_desired(robot: str, dataflow: str, content: RobotAssignment, version: int) -> Desired:
    return Desired(
        robot=robot,
        dataflow=dataflow,
        release=content.release,
        params=content.params,
        enabled=content.enabled,
        generation=content.generation,
        version=version,
        uuid=content.uuid,
    )


def _differences(wanted: DesiredSet, now: Desired) -> list[str]:
    """Return the differences of the content, in words."""
    pairs = (
        ("release", as_json(now.release), as_json(wanted.release)),
        ("params", as_json(now.params), as_json(wanted.params)),
        ("enabled", as_json(now.enabled), as_json(wanted.enabled)),
    )
    return [
        f"{field} is {_shown(there)}, not {_shown(own)}"
        for field, there, own in pairs
        if there != own
    ]


def _shown(encoded: bytes) -> str:
    return shorten(encoded.decode(), MAX_SHOWN)


def _conflict(wanted: DesiredSet, now: Desired | None) -> ControlError:
    place = f"`{wanted.dataflow}` on `{wanted.robot}`"
    if now is None:
        return ControlError(
            "conflict",
            f"there is no desired state of {place} yet, so no version {wanted.if_version}",
            "send 0 as `if_version`",
        )
    return ControlError(
        "conflict",
        f"{place} is at version {now.version}, not {wanted.if_version}",
        "read it again and repeat the change",
        _differences(wanted, now),
    )
