"""How far each robot is in a hand-over: stored, resumed, ended on its date, with a real store."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AsyncExitStack, asynccontextmanager

import msgspec
import pytest
from cryptography import x509
from hypothesis import assume, given
from hypothesis import strategies as st

from dorad.agent.handover import fingerprint
from dorad.control.errors import ControlError
from dorad.control.messages.agent import AGENT_HANDOVER, Trust
from dorad.control.tls import Certificate, Identity
from dorafleet.ca.authority import find_folder
from dorafleet.ca.handover import make_successor, usable_successor
from dorafleet.coordinator.authority import HandOverRecord, load_authorities
from dorafleet.coordinator.grants import Grants
from dorafleet.coordinator.handover import HandOvers
from dorafleet.coordinator.handoverstate import HandOverState, gives_new
from dorafleet.coordinator.writer import Writer
from dorafleet.store.sqlite import SqliteStore
from tests.fleet.ca.keys import csr_of, new_key
from tests.harness.waiting import until

pytestmark = pytest.mark.long

ADMIN = {"client": "test"}


class Shown:
    """What the server would show and trust."""

    def __init__(self):
        self.last = None
        self.fails = 0

    async def __call__(self, authority, trusted):
        if self.fails:
            self.fails -= 1
            raise ControlError("refused", "the disk is full")
        self.last = (authority.fingerprint, trusted.count("BEGIN CERTIFICATE"))


class FakeClient:
    """A robot that does what the test says."""

    def __init__(self, *, certified=False, error=None, is_older=False):
        """`is_older`: it knows hand-overs, and not that they can be cancelled."""
        self.orders = []
        self.is_older = is_older
        self.certified = certified
        self.error = error

    async def call(self, method, order):
        assert method is AGENT_HANDOVER
        self.orders.append(order)
        if self.error is not None:
            raise self.error
        found = x509.load_pem_x509_certificate(order.root.encode())
        new = [] if order.cancelled and not self.is_older else [fingerprint(found)]
        return Trust(trusted=["old", *new], certified=self.certified)


class State:
    """A leader's part of a hand-over."""

    def __init__(self, folder, store, writer, grants, authorities):
        self.folder = folder
        self.store = store
        self.grants = grants
        self.shown = Shown()
        state = HandOverState(store, writer, grants, authorities, ["arm1", "arm2"])
        self.hand_overs = HandOvers(state, writer, folder, self.shown)

    async def enrol(self, robot):
        key = new_key()
        authority = self.hand_overs.state.current
        issued = authority.issue(csr_of(key), Identity("robot", robot))
        await self.grants.add_certificate(issued.certificate, ADMIN, replace=True)
        await self.hand_overs.state.enrolled(robot)

    async def begin(self, days=30):
        current = find_folder(self.folder, self.hand_overs.state.current.fingerprint)
        wanted = make_successor(self.folder, current, days)
        return await self.hand_overs.begin(wanted, ADMIN)


@asynccontextmanager
async def leading(path, folder, **options):
    """Lead a fleet with the store in a file and the authorities in a folder."""
    async with AsyncExitStack() as stack:
        store = await SqliteStore.open(path)
        stack.push_async_callback(store.close)
        term = await stack.enter_async_context(store.lead("test"))
        writer = Writer(store, term)
        grants = Grants(store, writer)
        await grants.load()
        authorities = await load_authorities(store, term, folder, **options)
        state = State(folder, store, writer, grants, authorities)
        await state.hand_overs.state.load()
        running = asyncio.create_task(state.hand_overs.run())
        yield state
        running.cancel()
        await asyncio.wait([running])
        if not running.cancelled():
            running.result()


async def never():
    raise AssertionError("no certificate is due")


async def test_a_hand_over_goes_on_where_it_was_after_a_restart_or_a_failover(tmp_path):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.enrol("arm1")
        await one.enrol("arm2")
        record = await one.begin()
        assert await one.hand_overs.begin(record.next, ADMIN) == record
        with pytest.raises(ControlError, match="is not finished"):
            await one.begin()
        with one.hand_overs.connected("arm1", FakeClient(), never):
            await until(lambda: one.hand_overs.state.waiting() == ["arm2"])
    # Another coordinator, whose folder lacks the new keys, does not lead.
    shutil.copytree(tmp_path / "ca", tmp_path / "other")
    shutil.rmtree(tmp_path / "other" / record.next[:16])
    with pytest.raises(ControlError, match="copy the folder"):
        async with leading(tmp_path / "db", tmp_path / "other"):
            pass
    async with leading(tmp_path / "db", tmp_path / "ca") as two:
        assert two.hand_overs.state.record == record
        assert two.hand_overs.state.waiting() == ["arm2"]
        assert two.hand_overs.state.current.fingerprint == record.previous
        assert two.hand_overs.state.trusted.count("BEGIN CERTIFICATE") == 2


@pytest.mark.parametrize("finished", [False, True])
async def test_a_store_from_before_the_hand_over_follows_what_the_folder_knows(tmp_path, finished):
    """The robots trust the new authority, whatever the backup says."""
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.enrol("arm1")
    shutil.copy(tmp_path / "db", tmp_path / "backup")
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        record = await one.begin()
        if finished:
            assert await one.hand_overs.finish(ADMIN, force=True) == ["arm1"]
    async with leading(tmp_path / "backup", tmp_path / "ca") as two:
        assert two.hand_overs.state.record.next == record.next
        assert two.hand_overs.state.record.open is not finished
        current = record.next if finished else record.previous
        assert two.hand_overs.state.current.fingerprint == current
        # A robot that was handed over is known as such with its next connection.
        assert two.hand_overs.state.old() == ["arm1"]
        client = FakeClient(certified=True)
        with two.hand_overs.connected("arm1", client, never):
            await until(lambda: two.hand_overs.state.old() == [])
        assert [each.finished for each in client.orders] == [finished]
    async with leading(tmp_path / "backup", tmp_path / "ca") as two:
        assert two.hand_overs.state.current.fingerprint == current


async def test_an_authority_that_was_made_and_never_begun_changes_nothing(tmp_path):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        made = make_successor(tmp_path / "ca", tmp_path / "ca", 30)
        first = one.hand_overs.state.current.fingerprint
        assert usable_successor(tmp_path / "ca", tmp_path / "ca") == tmp_path / "ca" / made[:16]
        (tmp_path / "ca" / made[:16] / "handed-over.pem").write_text(
            one.hand_overs.state.current.certificate
        )
        with pytest.raises(ControlError, match="refused: "):
            await one.hand_overs.begin(made, ADMIN)
        with pytest.raises(ControlError, match="is missing"):
            await one.hand_overs.begin("0" * 64, ADMIN)
        assert one.shown.last is None
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        assert one.hand_overs.state.current.fingerprint == first
        assert one.hand_overs.state.record is None


async def test_on_its_date_a_hand_over_ends_by_itself_with_certificates_for_who_is_there(tmp_path):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.enrol("arm1")
        await one.enrol("arm2")
        record = await one.begin()
        hand_overs, given = one.hand_overs, []

        async def renew():
            given.append(hand_overs.state.for_robot("arm1").fingerprint)

        client = FakeClient()
        with hand_overs.connected("arm1", client, renew):
            await until(lambda: hand_overs.state.waiting() == ["arm2"])
            # One that is away holds back certificates, but not the end.
            assert hand_overs.state.for_robot("arm1").fingerprint == record.previous
            assert not given
            client.certified = True
            hand_overs.state.record = msgspec.structs.replace(record, ends=time.time())
            await until(lambda: not hand_overs.state.record.open)
            assert given == [record.next]
            assert hand_overs.state.old() == ["arm2"]
            await until(lambda: one.shown.last == (record.next, 1))
            await until(lambda: client.orders[-1].finished)
        # Whoever is enrolled now has a certificate of the new authority.
        assert "was away" in hand_overs.state.warning("arm2")
        await one.enrol("arm2")
        assert hand_overs.state.old() == []
        assert hand_overs.state.warning("arm2") == ""


async def test_robots_that_refuse_or_know_no_hand_over_are_shown_and_hold_nothing_up(tmp_path):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.enrol("arm1")
        await one.enrol("arm2")
        await one.begin()
        hand_overs = one.hand_overs
        old = FakeClient(error=ControlError("unknown-method", "there is no method"))
        wrong = FakeClient(error=ControlError("refused", "it ended on 2026-01-01"))
        with hand_overs.connected("arm1", old, never), hand_overs.connected("arm2", wrong, never):
            await until(lambda: "upgrade it" in hand_overs.state.warning("arm1"))
            await until(lambda: "it ended on 2026-01-01" in hand_overs.state.warning("arm2"))
            assert await hand_overs.finish(ADMIN, force=True) == ["arm1", "arm2"]


async def test_a_revoked_robot_is_not_waited_for_and_its_certificate_stays_refused(tmp_path):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.enrol("arm1")
        await one.enrol("arm2")
        [serial] = one.grants.holder("robot", "arm1").serials
        before = Certificate(Identity("robot", "arm1"), int(serial, 16), 0, int(time.time()) + 99)
        await one.begin()
        await one.grants.revoke("robot", "arm1", ADMIN)
        assert one.grants.is_revoked(before)
        with one.hand_overs.connected("arm2", FakeClient(certified=True), never):
            await until(lambda: one.hand_overs.state.old() == [])
        await one.hand_overs.finish(ADMIN, force=False)
        assert one.grants.is_revoked(before)
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        assert one.grants.is_revoked(before)


@given(
    begun=st.integers(0, 10**9),
    lasts=st.integers(1, 10**7),
    share=st.floats(-1, 2),
    waiting=st.lists(st.sampled_from(["arm1", "arm2"]), unique=True),
)
def test_certificates_come_once_all_trust_the_new_authority_or_in_the_last_third(
    begun, lasts, share, waiting
):
    record = HandOverRecord("a", "b", float(begun), float(begun + lasts))
    expected = not waiting or share > 2 / 3 + 1e-9
    assume(abs(share - 2 / 3) > 1e-6)
    assert gives_new(record, waiting, begun + share * lasts) is expected


async def test_a_full_disk_delays_the_certificate_of_the_coordinator_and_loses_nothing(
    tmp_path,
):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        record = await one.begin()
        one.shown.fails = 2
        assert await one.hand_overs.finish(ADMIN, force=False) == []
        assert one.shown.last == (record.previous, 2)
        await until(lambda: one.shown.last == (record.next, 1))


@pytest.mark.parametrize("wanted", ["", "../" * 20, "a" * 63, "A" * 64, "a" * 65, "a" * 63 + "\n"])
async def test_what_is_no_fingerprint_reaches_no_file(tmp_path, wanted):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        with pytest.raises(ControlError, match="64 hexadecimal digits"):
            await one.hand_overs.begin(wanted, ADMIN)


async def test_only_operators_with_an_old_certificate_get_a_second_one(tmp_path):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        hand_overs = one.hand_overs
        ann = Identity("operator", "ann", "viewer")
        first = hand_overs.state.for_operators.issue_pair(ann).issued.certificate
        await one.grants.add_certificate(first, ADMIN, replace=True)
        assert not hand_overs.state.replaces("ann")
        record = await one.begin()
        assert [hand_overs.state.replaces(name) for name in ("ann", "bob")] == [True, False]
        assert hand_overs.state.operators(new=False) == ["ann"]
        assert hand_overs.state.for_operators.fingerprint == record.next
        second = hand_overs.state.for_operators.issue_pair(ann).issued.certificate
        await one.grants.add_certificate(second, ADMIN, replace=False)
        await hand_overs.state.added("ann")
        assert not any(map(one.grants.is_revoked, (first, second)))
        assert not hand_overs.state.replaces("ann")
        assert hand_overs.state.operators(new=False) == []
        # A revocation is of both, and a new certificate revives neither.
        await one.grants.revoke("operator", "ann", ADMIN)
        assert not hand_overs.state.replaces("ann")
        third = hand_overs.state.for_operators.issue_pair(ann).issued.certificate
        await one.grants.add_certificate(third, ADMIN, replace=True)
        assert [one.grants.is_revoked(each) for each in (first, second, third)] == [
            True,
            True,
            False,
        ]


async def test_a_robot_with_a_new_certificate_gets_no_old_one_again(tmp_path):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.enrol("arm1")
        record = await one.begin()
        with one.hand_overs.connected("arm1", FakeClient(certified=True), never):
            await until(lambda: one.hand_overs.state.old() == [])
        await one.enrol("arm2")  # which holds certificates back until it trusts both
        one.hand_overs.state._waiting = (0.0, [])
        assert one.hand_overs.state.waiting() == ["arm2"]
        assert one.hand_overs.state.for_robot("arm1").fingerprint == record.next
        assert one.hand_overs.state.for_robot("arm2").fingerprint == record.previous


async def test_a_cancelled_hand_over_is_taken_back_robot_by_robot(tmp_path):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.enrol("arm1")
        await one.enrol("arm2")
        record = await one.begin()
        state, client = one.hand_overs.state, FakeClient()
        with one.hand_overs.connected("arm1", client, never):
            await until(lambda: state.waiting() == ["arm2"])
            assert await one.hand_overs.cancel(ADMIN) == []
            assert one.shown.last == (record.previous, 1)
            assert (state.current.fingerprint, state.for_operators) == (
                record.previous,
                state.current,
            )
            assert state.trusting() == ["arm1"]
            await until(lambda: state.trusting() == [])
            assert client.orders[-1].cancelled
            assert not client.orders[-1].finished
        for refused in (one.hand_overs.cancel(ADMIN), one.hand_overs.finish(ADMIN, force=True)):
            with pytest.raises(ControlError, match="there is no hand-over"):
                await refused
        # Its keys are not used again, also by a command that has just made them.
        with pytest.raises(ControlError, match="was cancelled"):
            await one.hand_overs.begin(record.next, ADMIN)
        assert usable_successor(tmp_path / "ca", tmp_path / "ca") is None
        again = await one.begin()
        assert again.next != record.next
        assert state.waiting() == ["arm1", "arm2"]


@pytest.mark.parametrize("restored", ["nothing", "before", "during"])
async def test_a_cancelled_hand_over_stays_so_after_a_restart_or_with_a_restored_store(
    tmp_path, restored
):
    """A robot that was away is told whenever it comes, also after the date."""
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.enrol("arm1")
        await one.enrol("arm2")
    shutil.copy(tmp_path / "db", tmp_path / "before")
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        record = await one.begin()
        with one.hand_overs.connected("arm1", FakeClient(), never):
            await until(lambda: one.hand_overs.state.waiting() == ["arm2"])
    shutil.copy(tmp_path / "db", tmp_path / "during")
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.hand_overs.cancel(ADMIN)
    store = "db" if restored == "nothing" else restored
    async with leading(tmp_path / store, tmp_path / "ca") as two:
        state = two.hand_overs.state
        assert (state.record.next, state.record.open) == (record.next, False)
        assert state.trusted == state.current.certificate
        assert state.for_robot("arm1") is state.current
        known = [] if restored == "before" else ["arm1"]
        assert state.trusting() == known
        if known:
            state.record = msgspec.structs.replace(state.record, begun=1.0, ends=2.0)
        client = FakeClient()
        with two.hand_overs.connected("arm1", client, never):
            await until(lambda: [each.cancelled for each in client.orders] == [True])
            await until(lambda: state.trusting() == [])


async def test_no_hand_over_is_cancelled_once_a_robot_may_have_a_new_certificate(tmp_path):
    """Also if the answer with the certificate was lost, or the coordinator was restarted since."""
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.enrol("arm1")
        record = await one.begin()

        async def renew():
            await one.hand_overs.state.offered("arm1")
            raise ControlError("unavailable", "the connection is lost")

        with one.hand_overs.connected("arm1", FakeClient(), renew):
            await until(lambda: one.hand_overs.state.new() == ["arm1"])
    async with leading(tmp_path / "db", tmp_path / "ca") as two:
        # It has not got it, as it says, or not yet.
        with two.hand_overs.connected("arm1", client := FakeClient(), never_yet):
            await until(lambda: client.orders)
            with pytest.raises(ControlError, match=r"were given to robots already: arm1"):
                await two.hand_overs.cancel(ADMIN)
        assert two.hand_overs.state.record == record
        assert two.hand_overs.state.is_due("arm1")


async def never_yet():
    await asyncio.Event().wait()


async def test_robots_with_earlier_software_are_no_trouble_after_a_cancelled_hand_over(tmp_path):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.enrol("arm1")
        await one.enrol("arm2")
        await one.begin()
        hand_overs, state = one.hand_overs, one.hand_overs.state
        unknown = FakeClient(error=ControlError("unknown-method", "there is no method"))
        older = FakeClient(is_older=True)
        with hand_overs.connected("arm1", unknown, never):
            with hand_overs.connected("arm2", older, never):
                await until(lambda: "upgrade it" in state.warning("arm1"))
                await until(lambda: state.waiting() == ["arm1"])
                await hand_overs.cancel(ADMIN)
                # The one that trusts the new authority cannot be told, and says so.
                await until(lambda: "cannot cancel a hand-over" in state.warning("arm2"))
                assert state.trusting() == ["arm2"]
        state.refusals.clear()
        with hand_overs.connected("arm1", unknown, never):
            await until(lambda: unknown.orders[-1].cancelled)
            await asyncio.sleep(0)
            assert state.warning("arm1") == ""


async def test_an_operator_with_a_file_of_a_cancelled_hand_over_is_named_and_gets_another(tmp_path):
    async with leading(tmp_path / "db", tmp_path / "ca") as one:
        await one.enrol("arm1")
        state = one.hand_overs.state
        await one.begin()
        bob = Identity("operator", "bob", "viewer")
        issued = state.for_operators.issue_pair(bob).issued.certificate
        await one.grants.add_certificate(issued, ADMIN, replace=True)
        await state.added("bob")
        assert await one.hand_overs.cancel(ADMIN) == ["bob"]
        assert state.replaces("bob")
        again = state.for_operators.issue_pair(bob).issued.certificate
        await one.grants.add_certificate(again, ADMIN, replace=False)
        await state.added("bob")
        assert not state.replaces("bob")
        assert state.operators(new=True) == []
