"""The campaigns: each inflicts one kind of fault for a while, and returns its outcome."""

import itertools
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from hwtests.faults.clock import Clock
from hwtests.faults.flow import RESTARTED, Flow
from hwtests.faults.testbed import DamageError, Testbed

PAUSE_S = 1.0
"""Longest pause in data of undisturbed nodes, which send every 5 ms, on two busy cores."""

SLACK = 40
"""Descriptors that may be added, for segments of killed nodes that others still read."""


@dataclass
class Outcome:
    """The result of a campaign; `skipped` is the reason if it did not run."""

    summary: str = ""
    faults: list[str] = field(default_factory=list)
    skipped: str | None = None


def repeat(seconds: float) -> Iterator[int]:
    """Yield 1, 2, … until the time is over, but at least once."""
    end = time.monotonic() + seconds
    for turn in itertools.count(1):
        yield turn
        if time.monotonic() > end:
            return


def check_undisturbed(testbed: Testbed, *flows: Flow, since_ns: int = 0) -> float:
    """Return the longest pause in undisturbed dataflows, in seconds; add their faults."""
    longest = max(flow.longest_pause(flow.checks, since_ns) for flow in flows)
    if longest > PAUSE_S:
        testbed.faults.append(f"undisturbed data paused for {longest:.2f} s")
    testbed.faults += [
        f"{flow.name}: {flow.missing()} messages are missing" for flow in flows if flow.missing()
    ]
    return longest


def check_descriptors(testbed: Testbed, before: tuple[int, int], now: tuple[int, int]) -> None:
    """Add a fault if the same nodes take more and more descriptors."""
    if sum(now) > sum(before) + SLACK:
        testbed.faults.append(f"dorad and its holder had {before} descriptors, now {now}")


def kill(seconds: float, rng: Random) -> Outcome:
    """SIGKILL nodes that are restarted; the others receive data in order."""
    killed: set[int | None] = set()
    with Testbed() as testbed:
        faulty = Flow("faulty", testbed.folder / "faulty")
        for chain in ("one", "two"):
            faulty.add_chain(chain, **RESTARTED)
        undisturbed = Flow("undisturbed", testbed.folder / "undisturbed")
        undisturbed.add_chain("undisturbed")
        testbed.start(faulty)
        testbed.start(undisturbed)
        open_before = testbed.descriptors()
        for _ in repeat(seconds):
            time.sleep(rng.expovariate(1.5))
            nodes = [node for node in testbed.nodes(faulty).values() if node.pid]
            for node in rng.sample(nodes, min(len(nodes), rng.choice((1, 1, 1, 2, 6)))):
                if testbed.signal(node.pid or 0, signal.SIGKILL):
                    killed.add(node.pid)

        def restarts() -> int:
            return sum(node.restarts for node in testbed.nodes(faulty).values())

        if not testbed.wait_until(lambda: restarts() >= len(killed)):
            testbed.faults.append(f"{len(killed)} killed, but only {restarts()} restarts")
        testbed.wait_for_data(faulty, undisturbed)
        pause = check_undisturbed(testbed, undisturbed)
        open_after = testbed.descriptors()
        check_descriptors(testbed, open_before, open_after)
        received, lost = faulty.received(), faulty.missing()
        testbed.stop(faulty)
        testbed.collect_faults((faulty, undisturbed))
    summary = (
        f"{len(killed)} killed and restarted; {received} messages verified, {lost} lost with"
        f" killed nodes; longest pause of others {pause:.2f} s;"
        f" descriptors of dorad and holder {open_before} before, {open_after} after"
    )
    return Outcome(summary, testbed.faults)


def stop(seconds: float, rng: Random) -> Outcome:
    """SIGSTOP and SIGCONT nodes: nothing is lost, and no node is replaced."""
    stops = 0
    with Testbed() as testbed:
        flow = Flow("flow", testbed.folder / "flow")
        for chain in ("one", "two"):
            flow.add_chain(chain)
        testbed.start(flow)
        pids = [node.pid or 0 for node in testbed.nodes(flow).values()]
        for _ in repeat(seconds):
            chosen = rng.sample(pids, rng.choice((1, 1, 2, 6)))
            stops += sum(testbed.signal(pid, signal.SIGSTOP) for pid in chosen)
            time.sleep(rng.expovariate(4.0))
            for pid in chosen:
                testbed.signal(pid, signal.SIGCONT)
            time.sleep(rng.expovariate(8.0))
        testbed.wait_for_data(flow)
        if (now := [node.pid or 0 for node in testbed.nodes(flow).values()]) != pids:
            testbed.faults.append(f"nodes were replaced: {pids} became {now}")
        if flow.missing():
            testbed.faults.append(f"{flow.missing()} messages are missing")
        received = flow.received()
        testbed.collect_faults([flow])
    return Outcome(f"{stops} stops; {received} messages verified, none lost", testbed.faults)


def forkbomb(_seconds: float, _rng: Random) -> Outcome:
    """Fork 200 children in their own sessions: `dora stop` ends them all."""
    processes = 200
    with Testbed() as testbed:
        undisturbed = Flow("undisturbed", testbed.folder / "undisturbed")
        undisturbed.add_chain("undisturbed")
        testbed.start(undisturbed)
        bomb = Flow("bomb", testbed.folder / "bomb")
        env = {"FAULTS_PROCESSES": str(processes)}
        bomb.add("bomb", "bomb", tick=1000, env=env)
        testbed.start(bomb)
        if not testbed.wait_until(lambda: bomb.counts("bomb")[0] == processes):
            raise DamageError("the node does not finish its forks")
        before = len(testbed.processes())
        begun = time.monotonic()
        testbed.stop(bomb)
        took = time.monotonic() - begun
        if left := testbed.processes_of(bomb):
            testbed.faults.append(f"{len(left)} processes outlive `dora stop`")
        testbed.wait_for_data(undisturbed)
        pause = check_undisturbed(testbed, undisturbed)
        testbed.collect_faults([undisturbed])
    summary = f"{before} processes, stopped in {took:.1f} s; longest pause of others {pause:.2f} s"
    return Outcome(summary, testbed.faults)


def clock(seconds: float, rng: Random, wall_clock: Clock) -> Outcome:
    """Step the wall clock by up to a day: no node is restarted and data does not pause."""
    steps = 0
    with wall_clock, Testbed(wall_clock.env) as testbed:
        flow = Flow("flow", testbed.folder / "flow")
        flow.add_chain("one", **RESTARTED, health_check_timeout=5.0)
        testbed.start(flow)
        begun = time.monotonic_ns()
        for _ in repeat(seconds):
            time.sleep(rng.uniform(0.2, 1.0))
            wall_clock.step(rng.choice((-1, 1)) * rng.choice(wall_clock.steps))
            steps += 1
        testbed.wait_for_data(flow)
        wall_clock.step(0)
        if restarts := sum(node.restarts for node in testbed.nodes(flow).values()):
            testbed.faults.append(f"{restarts} restarts")
        pause = check_undisturbed(testbed, flow, since_ns=begun)
        testbed.collect_faults([flow])
        summary = f"{steps} steps of {wall_clock.what}; {flow.received()} messages verified,"
    return Outcome(f"{summary} longest pause {pause:.2f} s", testbed.faults)
