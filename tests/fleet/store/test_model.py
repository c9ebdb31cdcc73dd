"""Random histories: an engine and a dictionary give the same answers, errors and watches."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from dorafleet.store.errors import CompactedError, ConflictError
from dorafleet.store.model import Changes, Entry, Transaction, end_of
from tests.harness.waiting import DEADLINE_S

KEYS = st.sampled_from(["a", "a/", "a/1", "a/2", "ab", "b", "~"])
PREFIXES = st.sampled_from(["", "a", "a/", "a/1", "b", "c", "~"])
VALUES = st.binary(max_size=3)


class Histories(RuleBasedStateMachine):
    engine = None
    """Set by the test."""

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.place = self.engine.new_place()
        self.store = self.run(self.engine.open(self.place))
        self.entries: dict[str, Entry] = {}
        self.history: list[Changes] = []
        self.revision = self.first = self.run(self.store.get("")).revision
        self.compacted = 0

    def run(self, work):
        return self.runner.run(asyncio.wait_for(work, DEADLINE_S))

    def teardown(self):
        self.run(self.store.close())
        self.runner.close()

    @rule(
        data=st.data(),
        puts=st.dictionaries(KEYS, VALUES, max_size=3),
        deletes=st.sets(KEYS, max_size=2),
        compares=st.dictionaries(KEYS, st.integers(0, 3), max_size=2),
    )
    def commit(self, data, puts, deletes, compares):
        deletes -= puts.keys()
        right = data.draw(st.booleans())
        expected = {
            key: self.version(key) if right or guess == 0 else self.first + guess
            for key, guess in compares.items()
        }
        transaction = Transaction(expected, puts, tuple(deletes))
        found = {key: self.version(key) for key in expected}
        if found != expected:
            with pytest.raises(ConflictError) as caught:
                self.run(self.store.commit(transaction))
            assert caught.value.found == {k: v for k, v in found.items() if v != expected[k]}
            return
        real = deletes & self.entries.keys()
        if puts or real:
            self.revision += 1
            self.entries |= {key: Entry(key, v, self.revision) for key, v in puts.items()}
            for key in real:
                del self.entries[key]
            self.history.append(Changes(self.revision, puts | dict.fromkeys(real)))
        assert self.run(self.store.commit(transaction)) == self.revision

    @rule(prefix=PREFIXES, after=st.one_of(st.just(""), KEYS), limit=st.none() | st.integers(1, 3))
    def get(self, prefix, after, limit):
        wanted = [
            entry
            for key, entry in sorted(self.entries.items())
            if key.startswith(prefix) and key > after
        ]
        found = self.run(self.store.get(prefix, after=after, limit=limit))
        assert list(found.entries) == wanted[:limit]
        assert found.revision == self.revision

    @rule(prefix=PREFIXES, back=st.integers(0, 20))
    def watch(self, prefix, back):
        start = max(self.first + 1, self.revision - back)
        if start == self.compacted:
            return  # engines may differ
        wanted = []
        for changes in self.history:
            values = {k: v for k, v in changes.values.items() if k.startswith(prefix)}
            if changes.revision >= start and values:
                wanted.append(Changes(changes.revision, values))
        if start < self.compacted:
            with pytest.raises(CompactedError):
                self.run(self.take(prefix, start, 1))
        elif wanted:
            assert self.run(self.take(prefix, start, len(wanted))) == wanted

    async def take(self, prefix, start, count):
        found = []
        async with aclosing(self.store.watch(prefix, start)) as changes:
            while len(found) < count:
                found.append(await anext(changes))
        return found

    @rule(back=st.integers(0, 5))
    def compact(self, back):
        at = self.revision - back
        if at > self.first:
            self.run(self.store.compact(at))
            self.compacted = max(self.compacted, at)

    @rule()
    def reopen(self):
        self.run(self.store.close())
        self.store = self.run(self.engine.open(self.place))

    @invariant()
    def the_revision_is_that_of_the_model(self):
        assert self.run(self.store.get("~", limit=1)).revision == self.revision

    def version(self, key):
        return self.entries[key].version if key in self.entries else 0


def test_any_history_is_that_of_the_model(engine):
    machine = type("Machine", (Histories,), {"engine": engine})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=25, stateful_step_count=25, deadline=None)
    )


@pytest.mark.parametrize(("prefix", "end"), [("a", "b"), ("a/", "a0"), ("~", "\x7f")])
def test_the_end_of_a_prefix_is_the_next_key_that_does_not_start_with_it(prefix, end):
    assert end_of(prefix) == end
