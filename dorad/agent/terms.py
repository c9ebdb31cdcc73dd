"""Which coordinator a robot obeys, and which head of the audit it keeps. Pure functions.

A term has a number, which grows by one with each new leader of a fleet. A robot obeys the highest
that it has met, but follows no jump: a coordinator in wrong hands could otherwise lock out all that
come after it. An operator can let a robot obey any term.
"""

import re
from collections.abc import Sequence

from msgspec.structs import replace

from dorad.agent.model import Memory
from dorad.control.errors import ControlError
from dorad.control.messages.agent import Attach, Remember, Revocation

MAX_JUMP = 1 << 20
"""How far ahead of the last one a term may be."""

MAX_FIRST = 1 << 42
"""The highest first term of a robot, and how far a term may be ahead of one from before terms were
counted: those were revisions of a store, which after a restore begin with milliseconds since 1970.
"""

MAX_REVOCATIONS = 100
MAX_HEAD = 100
"""Characters of a head of the audit."""

_HEAD = re.compile(r"(\d{1,18}):[0-9a-f]{64}")


def obey(memory: Memory, fleet: str, authority: str, attach: Attach) -> Memory:
    """Return the memory of a robot that obeys the coordinator that attaches.

    Raises:
        ControlError: with code `conflict`: the robot has obeyed a later term, or another one of the
            same number, or this one is too far ahead.
    """
    if fleet != memory.fleet:
        memory = replace(memory, fleet=fleet, epoch=0, term="")
    if authority != memory.authority:
        memory = replace(memory, authority=authority, audit="", revocations=[])
    why = "" if attach.takes_over and attach.epoch <= MAX_FIRST else _objection(memory, attach)
    if why:
        raise ControlError(
            "conflict",
            why,
            "another coordinator has taken over, or this one was restored or copied; if it is the "
            "right one: `dorafleet takeover ROBOT`",
        )
    audit = memory.audit or attach.audit[:MAX_HEAD]
    if not attach.term:
        # A coordinator that compares no heads: keep the highest.
        audit = _higher(memory.audit, attach.audit[:MAX_HEAD])
    # Who has counted once does not jump again by not counting.
    return replace(memory, epoch=attach.epoch, term=attach.term or memory.term, audit=audit)


def _objection(memory: Memory, attach: Attach) -> str:
    """Return why a term must not be obeyed, or an empty text."""
    known, given = memory.epoch, attach.epoch
    if given < known:
        return f"this robot obeys a coordinator of epoch {known}; epoch {given} is older"
    if given == known and memory.term and attach.term and attach.term != memory.term:
        return f"this robot obeys another coordinator of the same epoch {known}"
    furthest = known + (MAX_JUMP if memory.term else MAX_FIRST)
    if given > furthest:
        return (
            f"this robot obeys a coordinator of epoch {known}; epoch {given} is too far ahead, "
            f"at most {furthest} is accepted"
        )
    return ""


def remember(memory: Memory, params: Remember) -> Memory:
    """Return the memory with a newer head of the audit.

    The present one stays unless the coordinator has found it in its audit: a coordinator whose
    audit was cut off would otherwise be reported only once.
    """
    head = params.audit[:MAX_HEAD]
    if params.known is None:
        return replace(memory, audit=_higher(memory.audit, head))
    if memory.audit not in ("", params.known):
        return memory
    return replace(memory, audit=head, revocations=_newest(params.revocations))


def _newest(revocations: Sequence[Revocation]) -> list[Revocation]:
    return list(revocations[-MAX_REVOCATIONS:])


def _higher(known: str, given: str) -> str:
    """Return the head of the longer audit; the given one if one of them is no head."""
    numbers = [_HEAD.fullmatch(each) for each in (known, given)]
    if numbers[0] is None or numbers[1] is None:
        return given
    return known if int(numbers[0][1]) > int(numbers[1][1]) else given
