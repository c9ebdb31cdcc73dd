"""Which machine has a robot's id: the first one keeps its place, a copy of its disk gets none.

A copied disk has the id and the key of its robot, and often its machine id. Two machines that
answer at the same time are two. Of one that comes while the first is away, the machine id, the boot
and the address tell whether it is the first: a robot that reboots has another boot, one that moves
another address, one that was installed again another machine id. A copy with the same machine id
looks like a robot that has moved. It is known for one when the first comes back in the boot in
which it had its place: no machine goes back to an earlier boot. Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

MAX_CLONES = 4
"""Other machines that are kept of one robot, the newest."""

FORGET_S = 86400.0
"""Seconds after which a machine that was refused is forgotten, unless it comes again."""

SHOWN_S = 600.0
"""Seconds for which it is reported: an agent that is refused tries again after a minute."""


class Origin(msgspec.Struct, frozen=True):
    """From which machine a robot's agent connects."""

    host: str
    """Its address, as the coordinator sees it."""
    boot_id: str
    """Different after each boot."""
    machine_id: str = ""
    """Of its installation; empty if the agent does not say, or has another one after each boot."""

    def text(self, other: Origin) -> str:
        """Return it for people; with the boot if the `other` one has the same machine id."""
        machine = f"machine id {self.machine_id[:12]}" if self.machine_id else "no machine id"
        boot = f", boot {self.boot_id[:8]}" if self.machine_id == other.machine_id else ""
        return f"{self.host} ({machine}{boot})"


class Clone(msgspec.Struct, frozen=True):
    """A machine that was refused, because another one has its id."""

    origin: Origin
    at: float
    """When it came last, in seconds since 1970."""


def is_surely_first(new: Origin, first: Origin | None) -> bool:
    """Return True if a connection comes from the first machine, without asking that one."""
    return first is not None and (new.host, new.boot_id) == (first.host, first.boot_id)


def was_first(new: Origin, former: Origin | None, first: Origin | None) -> bool:
    """Return True if a machine had the place before the one that has it, and was not rebooted."""
    if former is None or first is None or new.boot_id == first.boot_id:
        return False
    return (new.host, new.boot_id) == (former.host, former.boot_id)


def former_after(former: Origin | None, first: Origin | None, new: Origin) -> Origin | None:
    """Return who had the place before, once `new` has it instead of `first`."""
    if first is None or is_surely_first(new, first):
        return former
    if was_first(new, former, first):
        return None
    if new.host == first.host:  # it was rebooted there
        return first if former is None or former.host == first.host else former
    # One that comes back to its address has no predecessor: the machine between was another one.
    return None if former is not None and former.host == new.host else first


def is_clone(
    new: Origin, first: Origin | None, clones: Sequence[Clone], *, first_answers: bool
) -> bool:
    """Return True if a machine is not the one that has this id.

    `first_answers`: the first machine has answered after this one had connected.
    """
    if first is None or is_surely_first(new, first):
        return False
    if first_answers:
        return True
    if any(_is_same(new, each.origin, first) for each in clones):
        return True
    # Containers of one machine share its boot.
    is_other = bool(new.machine_id and first.machine_id) and new.machine_id != first.machine_id
    return is_other and new.host != first.host


def _is_same(new: Origin, clone: Origin, first: Origin) -> bool:
    """Return True if a machine is one that was refused before, perhaps after another boot."""
    if new.boot_id == clone.boot_id != first.boot_id:
        return True
    of_first = (new.boot_id, new.machine_id) == (first.boot_id, first.machine_id)
    if of_first and clone.boot_id != first.boot_id:
        return False  # the first machine itself: it has the address of its copy now
    same = (new.host, new.machine_id) == (clone.host, clone.machine_id)
    return same and new.host != first.host


def with_clone(clones: Sequence[Clone], origin: Origin, now: float) -> list[Clone]:
    """Return the known clones after one has come, without those that have not come for long."""
    others = [each for each in clones if each.origin != origin and now - each.at < FORGET_S]
    return [*others[1 - MAX_CLONES :], Clone(origin, now)]


def clone_text(
    robot: str,
    first: Origin | None,
    clones: Sequence[Clone],
    now: float,
    former: Origin | None = None,
) -> str:
    """Return what to report of machines that were refused lately; empty if there are none.

    `former` had the place before `first`.
    """
    recent = [each.origin for each in clones if now - each.at < SHOWN_S]
    if not recent or first is None:
        return ""
    newest, holder = recent[-1], first.text(recent[-1])
    others = newest.text(first)
    if len(recent) > 1:
        others += f" and {len(recent) - 1} more"
    remedy = (
        f"`dorafleet revoke {robot}`, then `dorafleet enrol cluster.yml {robot}` for the right one"
    )
    if former is not None and newest.host == former.host:
        return (
            f"two machines have its id and certificate: {others} had its place and is refused, "
            f"{holder} has it now; either may be the copy: {remedy}"
        )
    return (
        f"a copy of it is refused: {others} has its id and certificate, too; {holder} came first: "
        f"{remedy}"
    )
