"""Which robot is to have which secret, and what is to be sent to it. Pure functions of data."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import msgspec

from dorad.control.messages.agent import SealedSecret, SecretsHeld
from dorad.int64 import Int64
from dorafleet.coordinator.secretmessages import RobotSecret, RobotSecretState

ALL = "*"
MAX_REASON = 300
"""Characters of a reason that a robot gives."""
OLD_AGENT = "its agent knows no secrets: `dorafleet upgrade` it"
NOT_SEALED = "it was not sealed for this robot, which is new or has another label"
OTHER_KEY = "it was sealed for a key that this robot no longer has"


class SecretRecord(msgspec.Struct, frozen=True):
    """The value of `secret/<name>/<target>`."""

    name: str
    target: str
    version: Int64
    """Higher than all before of this name."""
    at: float
    by: str
    removed: bool = False
    """Whether robots that still have it have to remove it."""


class Sealed(msgspec.Struct, frozen=True):
    """The value of `sealed/<name>/<target>/<robot>`."""

    version: Int64
    key: str
    """The public key that it was sealed for."""
    sealed: str


Place = tuple[str, str]
"""The name and the target of a secret."""


class Recipient(NamedTuple):
    """A robot, as far as secrets are concerned."""

    robot: str
    labels: Mapping[str, str]
    key: str
    """Its public key; empty if none is known."""
    held: SecretsHeld | None
    """What it has reported; None if it has not connected to this coordinator."""


class Step(NamedTuple):
    """What to send to a robot."""

    puts: list[SealedSecret]
    removes: list[str]


def matches(target: str, robot: str, labels: Mapping[str, str]) -> bool:
    """Return True if a target means this robot."""
    label, equals, value = target.partition("=")
    return labels.get(label) == value if equals else target in (ALL, robot)


def wanted(records: Mapping[Place, SecretRecord], recipient: Recipient) -> dict[str, SecretRecord]:
    """Return the secrets that a robot is to have, by name.

    Its own comes before that of a label, and that before the one of all; of several labels the one
    that was set last counts.
    """
    chosen: dict[str, SecretRecord] = {}
    for record in records.values():
        if not _is_for(record, recipient):
            continue
        before = chosen.get(record.name)
        if before is None or _rank(record) > _rank(before):
            chosen[record.name] = record
    return chosen


def states(
    records: Mapping[Place, SecretRecord],
    sealed: Mapping[Place, Mapping[str, Sealed]],
    recipient: Recipient,
) -> Iterator[tuple[SecretRecord | None, str, RobotSecret]]:
    """Yield the state of each secret that a robot is to have, or has unknown to the coordinator.

    Each with its record, None if there is none, and its name.
    """
    chosen = wanted(records, recipient)
    for name, record in sorted(chosen.items()):
        own = sealed.get((name, record.target), {}).get(recipient.robot)
        state, reason = _state(record, own, recipient, newest(records, name))
        yield record, name, RobotSecret(robot=recipient.robot, state=state, reason=reason)
    known = {name for name, _ in records}
    for name in sorted(recipient.held.held if recipient.held else ()):
        if name not in known:
            reason = "the robot has it, and this coordinator knows no secret of this name"
            yield None, name, RobotSecret(robot=recipient.robot, state="unknown", reason=reason)


def step_for(
    records: Mapping[Place, SecretRecord],
    sealed: Mapping[Place, Mapping[str, Sealed]],
    recipient: Recipient,
) -> Step:
    """Return what to send to a robot that is connected.

    A secret that the coordinator does not know, or has only an older version of, stays: the store
    may have been restored. So does the old value until a new one is there for this robot.
    """
    step = Step([], [])
    if recipient.held is None or not recipient.key:
        return step
    chosen = wanted(records, recipient)
    for name, record in chosen.items():
        own = sealed.get((name, record.target), {}).get(recipient.robot)
        state, _ = _state(record, own, recipient, newest(records, name))
        if state == "waiting" and own is not None:
            step.puts.append(
                SealedSecret(
                    name=name, version=own.version, target=record.target, sealed=own.sealed
                )
            )
    replaced = {secret.name for secret in step.puts}
    for name, held in recipient.held.held.items():
        if name in replaced or held.version > newest(records, name):
            continue
        # The value of a target that it no longer belongs to goes, also if there is no other one.
        source = records.get((name, held.target))
        if name not in chosen or (source is not None and not _is_for(source, recipient)):
            step.removes.append(name)
    return step


def lacking(
    records: Mapping[Place, SecretRecord], recipient: Recipient, names: Iterable[str]
) -> list[str]:
    """Return those of the names that a robot does not have now.

    One that has never connected here may have them.
    """
    if recipient.held is None:
        return [name for name in names if name not in wanted(records, recipient)]
    return [name for name in names if name not in recipient.held.held]


def next_version(records: Mapping[Place, SecretRecord], name: str, now: float) -> int:
    """Return the version of a new value: higher than all before, also than those a backup lacks."""
    return max(int(now * 1000), newest(records, name) + 1)


def newest(records: Mapping[Place, SecretRecord], name: str) -> int:
    """Return the highest version of a secret, -1 if the coordinator knows none of this name."""
    versions = [record.version for (each, _), record in records.items() if each == name]
    return max(versions, default=-1)


def _is_for(record: SecretRecord, recipient: Recipient) -> bool:
    return not record.removed and matches(record.target, recipient.robot, recipient.labels)


def _rank(record: SecretRecord) -> tuple[int, int]:
    precise = 0 if record.target == ALL else 1 if "=" in record.target else 2
    return precise, record.version


def _state(
    record: SecretRecord, own: Sealed | None, recipient: Recipient, newest_version: int
) -> tuple[RobotSecretState, str]:
    held = recipient.held
    if held is not None:
        if record.name in held.refused:
            return "refused", held.refused[record.name][:MAX_REASON]
        there = held.held.get(record.name)
        if there is not None and (there.version, there.target) == (record.version, record.target):
            return "held", ""
        if there is not None and there.version > newest_version:
            return "unknown", "it has a newer value than this coordinator, which was restored"
        if not recipient.key:
            return "missing", held.refused.get("", OLD_AGENT)[:MAX_REASON]
    if own is None or own.version != record.version:
        return "missing", NOT_SEALED
    if recipient.key and own.key != recipient.key:
        return "missing", OTHER_KEY
    return "waiting", ""
