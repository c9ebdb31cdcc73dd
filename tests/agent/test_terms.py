"""Which coordinator a robot obeys: terms are a counter that no coordinator can run away with."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dorad.agent import terms
from dorad.agent.identitystore import IdentityStore
from dorad.agent.model import Memory
from dorad.agent.store import AssignmentStore
from dorad.control.errors import ControlError
from dorad.control.messages import Nothing
from dorad.control.messages.agent import (
    AGENT_ATTACH,
    AGENT_CERTIFY,
    AGENT_REMEMBER,
    AGENT_RENEW,
    SHARE_OPEN,
    SHARE_SET,
    Attach,
    Certificates,
    Remember,
    Revocation,
    ShareRef,
)
from dorad.control.tls import Identity
from dorafleet.ca.authority import open_authority
from tests.agent.fleet import robot, send
from tests.agent.orders import order
from tests.harness.waiting import until

HUGE = (1 << 62) - 1


def attach(epoch, *, term="a", takes_over=False, audit=""):
    return Attach(
        coordinator="test:1", epoch=epoch, audit=audit, time=0, term=term, takes_over=takes_over
    )


def obeyed(memory, epoch, **more):
    """Return the memory after an attach, which may have been refused."""
    try:
        return terms.obey(memory, "fleet", "authority", attach(epoch, **more))
    except ControlError as error:
        assert error.code == "conflict"
        assert "dorafleet takeover" in error.hint
        return memory


def test_the_highest_term_is_obeyed_and_no_other_of_its_number():
    memory = obeyed(Memory(), 5)
    assert (memory.epoch, memory.term) == (5, "a")
    assert obeyed(memory, 4) is memory
    assert obeyed(memory, 5, term="b") is memory
    assert obeyed(memory, 5).epoch == 5
    assert obeyed(memory, 6, term="b").epoch == 6


@given(
    st.lists(st.tuples(st.integers(0, HUGE), st.sampled_from(["hostile", ""])), max_size=20),
    st.booleans(),
)
def test_no_number_locks_out_the_next_coordinator_for_long(given, counted):
    memory = obeyed(Memory(), 7, term="a" if counted else "")
    for number, term in given:
        before, memory = memory, obeyed(memory, number, term=term)
        assert (
            before.epoch
            <= memory.epoch
            <= before.epoch + (terms.MAX_JUMP if before.term else terms.MAX_FIRST)
        )
    # An operator's yes lets the robot obey any honest term, and those that follow it.
    for number in range(8, 11):
        memory = obeyed(memory, number, term="honest", takes_over=number == 8)
        assert memory.epoch == number


@given(st.integers(0, HUGE))
def test_a_yes_accepts_no_term_that_no_coordinator_counts_to(number):
    memory = obeyed(
        Memory(fleet="fleet", authority="authority", epoch=HUGE), number, takes_over=True
    )
    assert memory.epoch == (number if number <= terms.MAX_FIRST else HUGE)


def test_a_robot_of_the_version_before_follows_the_first_counted_term():
    """Its epoch was a revision: of etcd, or after a restore one above milliseconds since 1970."""
    restored = 1_797_000_000_000
    for last, first in ((812, 813), (812, restored), (restored, restored + 100_000_000)):
        memory = Memory(fleet="fleet", epoch=last, authority="authority", audit="x")
        memory = obeyed(memory, first)
        assert memory.epoch == first
        assert obeyed(memory, first + 1, term="b").epoch == first + 1


def test_a_coordinator_that_does_not_count_any_more_makes_no_larger_jumps():
    memory = obeyed(obeyed(Memory(), 5), 6, term="")
    assert memory.epoch == 6
    assert obeyed(memory, 6 + terms.MAX_JUMP + 1, term="") is memory
    assert obeyed(memory, 6 + terms.MAX_JUMP, term="").epoch == 6 + terms.MAX_JUMP


def test_another_enrolment_forgets_terms_and_another_authority_also_the_audit():
    memory = msgspec.structs.replace(obeyed(Memory(), 9, audit="9:x"), audit="9:x")
    again = terms.obey(memory, "enrolled again", "authority", attach(1))
    assert (again.epoch, again.audit) == (1, "9:x")
    other = terms.obey(memory, "enrolled elsewhere", "another", attach(1, audit="1:y"))
    assert (other.epoch, other.audit) == (1, "1:y")


def head(number, digit="0"):
    return f"{number}:{digit * 64}"


def test_a_head_gives_way_only_to_an_audit_that_continues_it():
    memory = obeyed(Memory(), 1, audit=head(3))
    cut = Remember(audit=head(2), known="")
    assert terms.remember(memory, cut) == memory
    assert terms.remember(memory, Remember(audit=head(90, "f"), known=head(90, "e"))) == memory
    assert obeyed(memory, 2, audit=head(9)).audit == head(3)
    who = [Revocation(owner="robot arm2", at=1.0)]
    followed = terms.remember(memory, Remember(audit=head(4), known=head(3), revocations=who))
    assert (followed.audit, followed.revocations) == (head(4), who)


def test_a_coordinator_that_compares_no_heads_does_not_lower_one():
    memory = obeyed(Memory(), 1, term="", audit=head(8))
    assert obeyed(memory, 2, term="", audit=head(5)).audit == head(8)
    assert terms.remember(memory, Remember(audit=head(7))).audit == head(8)
    assert terms.remember(memory, Remember(audit=head(9))).audit == head(9)


async def test_a_hostile_coordinator_cannot_lock_out_the_one_that_repairs_the_fleet(folder):
    async with robot(folder) as (coordinator, agent, _dorad):
        control = await coordinator.attach(epoch=3)
        await control.close()
        with pytest.raises(ControlError, match="too far ahead"):
            await coordinator.attach(epoch=HUGE)
        control = await coordinator.attach(epoch=4)
        # Neither does an order of a term that has not attached.
        for what in (send(control, order(epoch=HUGE)),):
            with pytest.raises(ControlError, match="of no coordinator that has attached"):
                await what
        await send(control, order(epoch=4, hold=60))
        ref = ShareRef(epoch=HUGE, generation=1, dataflow="flow")
        with pytest.raises(ControlError, match="of no coordinator that has attached"):
            await control.client.call(SHARE_OPEN, ref)
        await send(control, order(2, epoch=4, enabled=False))
        await control.close()
        del agent


async def test_an_operator_s_yes_lets_an_older_term_take_over_with_all_shares(folder):
    async with robot(folder) as (coordinator, agent, dorad):
        control = await coordinator.attach(epoch=50)
        await send(control, order(9, epoch=50))
        await control.reaches("running")
        await control.close()
        with pytest.raises(ControlError, match="epoch 50; epoch 2 is older"):
            await coordinator.attach(epoch=2)
        await agent.says("is not obeyed")
        client = await coordinator.client()
        taken = attach(2, takes_over=True)
        found = await client.call(AGENT_ATTACH, taken)
        assert (found.epoch, found.shares[0].status) == (50, "running")
        # A lower generation of the store that was restored is followed, too; no node is restarted.
        state = await client.call(SHARE_SET, order(1, epoch=2))
        assert (state.epoch, state.generation) <= (2, 9)
        await client.close()
        control = await coordinator.attach(epoch=3)
        await until(lambda: control.shares["flow"].generation == 1)
        await control.reaches("running")
        assert len(dorad.started) == 1


async def test_a_new_enrolment_and_leaving_forget_the_term(folder):
    async with robot(folder) as (coordinator, agent, _dorad):
        control = await coordinator.attach(epoch=700, audit=head(12))
        await control.close()
        with pytest.raises(ControlError, match="is older"):
            await coordinator.attach(epoch=1)
        await asyncio.to_thread(agent.enrol, coordinator.authority, coordinator.port, replace=True)
        control = await coordinator.attach(epoch=1)
        assert (control.attached.epoch, control.attached.audit) == (0, head(12))
        await control.close()
        agent.end()
        store = AssignmentStore(agent.folder / "shares.db")
        store.remember(msgspec.structs.replace(store.memory, epoch=HUGE, term="hostile"))
        store.close()
        left = await asyncio.to_thread(agent.command, "leave", "--force")
        assert left.returncode == 0, left.stderr
        store = AssignmentStore(agent.folder / "shares.db")
        assert (store.memory.fleet, store.memory.epoch, store.memory.term) == ("", 0, "")
        store.close()


async def test_a_renewal_keeps_the_term_and_the_authority(folder):
    async with robot(folder) as (coordinator, agent, _dorad):
        control = await coordinator.attach(epoch=7)
        identities = IdentityStore(agent.folder)
        before = identities.load()
        foreign = open_authority(folder / "foreign")
        csr = (await control.client.call(AGENT_RENEW, Nothing())).csr
        issued = foreign.issue(csr, Identity("robot", "arm1"))
        answer = Certificates(chain=issued.chain, authority=foreign.certificate)
        with pytest.raises(ControlError, match="another authority than the one that this robot"):
            await control.client.call(AGENT_CERTIFY, answer)
        assert identities.load() == before
        issued = coordinator.authority.issue(csr, Identity("robot", "arm1"))
        answer = Certificates(chain=issued.chain, authority=coordinator.authority.certificate)
        version = identities.version
        await control.client.call(AGENT_CERTIFY, answer)
        assert identities.version != version
        assert identities.load() == before
        await control.close()
        with pytest.raises(ControlError, match="is older"):
            await coordinator.attach(epoch=6)


async def test_the_clock_is_told_though_the_head_stays(folder):
    async with robot(folder) as (coordinator, _agent, _dorad):
        control = await coordinator.attach(epoch=1, audit=head(3))
        begun = time.time()
        asked = Remember(audit=head(2), known="")
        found = await control.client.call(AGENT_REMEMBER, asked)
        assert found.audit == head(3)
        assert begun <= found.time <= time.time()
        await control.close()
        control = await coordinator.attach(epoch=1, audit=head(2))
        assert control.attached.audit == head(3)
