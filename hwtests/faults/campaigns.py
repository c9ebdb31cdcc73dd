"""The campaigns: each inflicts one kind of fault for a while, and says what it saw."""

from __future__ import annotations

import itertools
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hwtests.faults.bed import Bed, DamageError
from hwtests.faults.flow import RESTARTED, Flow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from hwtests.faults.clock import Clock

PAUSE_S = 1.0
"""Longest pause in data whose nodes nobody touches. They send every 5 ms; the rest is for a machine
with two busy cores."""

SLACK = 40
"""Descriptors: nodes that were killed have left segments that others still read, and so on."""


@dataclass
class Outcome:
    """What a campaign saw. `skipped` says why it did not take place."""

    said: str = ""
    faults: list[str] = field(default_factory=list)
    skipped: str | None = None


def spell(seconds: float) -> Iterator[int]:
    """Count until so many seconds have passed, to one at least."""
    end = time.monotonic() + seconds
    for turn in itertools.count(1):
        yield turn
        if time.monotonic() > end:
            return


def check_calm(bed: Bed, *flows: Flow, since_ns: int = 0) -> float:
    """Return the longest pause in dataflows that had nothing to do with the faults, in seconds."""
    longest = max(flow.longest_pause(flow.checks, since_ns) for flow in flows)
    if longest > PAUSE_S:
        bed.faults.append(f"data that had nothing to do with it paused for {longest:.2f} s")
    bed.faults += [
        f"{flow.name}: {flow.missing()} messages are missing" for flow in flows if flow.missing()
    ]
    return longest


def check_descriptors(bed: Bed, before: tuple[int, int], now: tuple[int, int]) -> None:
    """The same nodes must not take more and more."""
    if sum(now) > sum(before) + SLACK:
        bed.faults.append(f"dorad and its holder held {before} descriptors, now {now}")


def kill(seconds: float, rng: Random) -> Outcome:
    """SIGKILL of nodes that are restarted; the others see data in order."""
    killed: set[int | None] = set()
    with Bed() as bed:
        struck = Flow("struck", bed.folder / "struck")
        for chain in ("one", "two"):
            struck.add_chain(chain, **RESTARTED)
        calm = Flow("calm", bed.folder / "calm")
        calm.add_chain("calm")
        bed.start(struck)
        bed.start(calm)
        held = bed.descriptors()
        for _ in spell(seconds):
            time.sleep(rng.expovariate(1.5))
            nodes = [node for node in bed.nodes(struck).values() if node.pid]
            for node in rng.sample(nodes, min(len(nodes), rng.choice((1, 1, 1, 2, 6)))):
                if bed.signal(node.pid or 0, signal.SIGKILL):
                    killed.add(node.pid)

        def restarts() -> int:
            return sum(node.restarts for node in bed.nodes(struck).values())

        if not bed.comes(lambda: restarts() >= len(killed)):
            bed.faults.append(f"{len(killed)} killed, but only {restarts()} restarts")
        bed.flows(struck, calm)
        pause = check_calm(bed, calm)
        held_now = bed.descriptors()
        check_descriptors(bed, held, held_now)
        received, lost = struck.received(), struck.missing()
        bed.stop(struck)
        bed.judge((struck, calm))
    said = (
        f"{len(killed)} killed and restarted; {received} messages verified, {lost} lost with those"
        f" that died; longest pause of others {pause:.2f} s;"
        f" descriptors of dorad and holder {held} before, {held_now} after"
    )
    return Outcome(said, bed.faults)


def stop(seconds: float, rng: Random) -> Outcome:
    """SIGSTOP and SIGCONT: nothing is lost, and nobody is taken for dead."""
    stops = 0
    with Bed() as bed:
        flow = Flow("flow", bed.folder / "flow")
        for chain in ("one", "two"):
            flow.add_chain(chain)
        bed.start(flow)
        pids = [node.pid or 0 for node in bed.nodes(flow).values()]
        for _ in spell(seconds):
            chosen = rng.sample(pids, rng.choice((1, 1, 2, 6)))
            stops += sum(bed.signal(pid, signal.SIGSTOP) for pid in chosen)
            time.sleep(rng.expovariate(4.0))
            for pid in chosen:
                bed.signal(pid, signal.SIGCONT)
            time.sleep(rng.expovariate(8.0))
        bed.flows(flow)
        if (now := [node.pid or 0 for node in bed.nodes(flow).values()]) != pids:
            bed.faults.append(f"nodes were replaced: {pids} became {now}")
        if flow.missing():
            bed.faults.append(f"{flow.missing()} messages are missing")
        received = flow.received()
        bed.judge([flow])
    return Outcome(f"{stops} stops; {received} messages verified, none lost", bed.faults)


def forkbomb(_seconds: float, _rng: Random) -> Outcome:
    """A node with 200 children in sessions of their own: `dora stop` ends them all."""
    processes = 200
    with Bed() as bed:
        calm = Flow("calm", bed.folder / "calm")
        calm.add_chain("calm")
        bed.start(calm)
        bomb = Flow("bomb", bed.folder / "bomb")
        env = {"FAULTS_PROCESSES": str(processes)}
        bomb.add("bomb", "bomb", tick=1000, env=env)
        bed.start(bomb)
        if not bed.comes(lambda: bomb.counts("bomb")[0] == processes):
            raise DamageError("the node does not get to its forks")
        before = len(bed.processes())
        begun = time.monotonic()
        bed.stop(bomb)
        took = time.monotonic() - begun
        if left := bed.processes_of(bomb):
            bed.faults.append(f"{len(left)} processes outlive `dora stop`")
        bed.flows(calm)
        pause = check_calm(bed, calm)
        bed.judge([calm])
    said = f"{before} processes, stopped in {took:.1f} s; longest pause of others {pause:.2f} s"
    return Outcome(said, bed.faults)


def clock(seconds: float, rng: Random, hand: Clock) -> Outcome:
    """A wall clock that jumps by up to a day: nothing happens."""
    steps = 0
    with hand, Bed(hand.env) as bed:
        flow = Flow("flow", bed.folder / "flow")
        flow.add_chain("one", **RESTARTED, health_check_timeout=5.0)
        bed.start(flow)
        begun = time.monotonic_ns()
        for _ in spell(seconds):
            time.sleep(rng.uniform(0.2, 1.0))
            hand.step(rng.choice((-1, 1)) * rng.choice(hand.steps))
            steps += 1
        bed.flows(flow)
        hand.step(0)
        if restarts := sum(node.restarts for node in bed.nodes(flow).values()):
            bed.faults.append(f"{restarts} restarts")
        pause = check_calm(bed, flow, since_ns=begun)
        bed.judge([flow])
        said = f"{steps} steps of {hand.what}; {flow.received()} messages verified,"
    return Outcome(f"{said} longest pause {pause:.2f} s", bed.faults)
