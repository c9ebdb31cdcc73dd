"""The campaign against the daemon itself: SIGKILL at random moments, and another one."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from hwtests.faults.bed import PATIENCE_S, Bed, DamageError
from hwtests.faults.campaigns import Outcome, check_calm, check_descriptors, spell
from hwtests.faults.flow import RESTARTED, Flow

if TYPE_CHECKING:
    from random import Random


def daemon(seconds: float, rng: Random) -> Outcome:
    """Data never stops, no line is lost or doubled, and every node is adopted."""
    kills = deaths = 0
    with Bed() as bed:
        calm, struck, talk = flows = [
            Flow(name, bed.folder / name) for name in ("calm", "struck", "talk")
        ]
        calm.add_chain("calm")
        struck.add_chain("struck", **RESTARTED)
        talk.add("talk", "talk", tick=5, env={"FAULTS_LINES": "10"})
        uuids = [bed.start(flow) for flow in flows]
        pids = _pids(bed, calm, talk)
        held = bed.descriptors()
        # The first death is the longest, so that data that stopped with the daemon would show.
        away = 2.0
        for _ in spell(seconds):
            time.sleep(rng.expovariate(2.0))
            victim = rng.choice(
                [node.pid for node in bed.nodes(struck).values() if node.pid] or [0]
            )
            if not bed.signal(bed.daemon_pid(), signal.SIGKILL):
                raise DamageError("the daemon is gone already")
            kills += 1
            if rng.random() < 0.5:
                deaths += bed.signal(victim, signal.SIGKILL)
            time.sleep(away)
            away = rng.expovariate(4.0)
            bed.dora("up")
            if (now := _pids(bed, calm, talk)) != pids:
                raise DamageError(f"nodes were not adopted: {pids} became {now}")
            _all_run(bed, *flows)
        bed.flows(calm, struck)
        pause = check_calm(bed, calm)
        held_now = bed.descriptors()
        check_descriptors(bed, held, held_now)
        for flow in flows:
            bed.stop(flow)
        bed.faults += talk.wrong_lines(uuids[2], "talk")
        bed.judge(flows)
        received = calm.received() + struck.received()
        lines = talk.counts("talk")[0]
    said = (
        f"{kills} kills of dorad, {deaths} of nodes meanwhile; {received} messages verified,"
        f" longest pause {pause:.2f} s; {lines} log lines, each once;"
        f" descriptors of dorad and holder {held} before, {held_now} after"
    )
    return Outcome(said, bed.faults)


def busy(seconds: float, rng: Random) -> Outcome:
    """Killed while it starts, stops or restarts a dataflow: all of that runs then, or nothing."""
    kills = {"start": 0, "stop": 0, "restart": 0}
    survived = 0
    with Bed() as bed:
        calm = Flow("calm", bed.folder / "calm")
        calm.add_chain("calm")
        bed.start(calm)
        for turn in spell(seconds):
            flow = Flow(f"brief-{turn}", bed.folder / f"brief-{turn}")
            flow.add_chain("brief")
            flow.write()
            verb = rng.choice(list(kills))
            if verb == "start":
                command = bed.begin("start", str(flow.file), "--name", flow.name, "--detach")
            else:
                bed.start(flow)
                command = bed.begin(verb, flow.name)
            time.sleep(rng.uniform(0.0, 1.0))
            if not bed.signal(bed.daemon_pid(), signal.SIGKILL):
                raise DamageError("the daemon is gone already")
            kills[verb] += 1
            command.wait(PATIENCE_S)
            bed.dora("up")
            if "starting" in bed.statuses(flow) or "running" in bed.statuses(flow):
                survived += 1
                bed.flows(flow)
                bed.stop(flow)
            if not bed.gone(flow):
                left = len(bed.processes_of(flow))
                raise DamageError(
                    f"killed during `dora {verb}`, then {bed.statuses(flow)}: {left} nodes are left"
                )
            bed.judge([flow])
        bed.flows(calm)
        pause = check_calm(bed, calm)
        bed.judge([calm])
    said = ", ".join(f"{count} during `dora {verb}`" for verb, count in kills.items())
    said += f"; {survived} dataflows ran then; longest pause of others {pause:.2f} s"
    return Outcome(said, bed.faults)


def lost(_seconds: float, _rng: Random) -> Outcome:
    """Daemon and holder killed at once: the next daemon leaves no orphan."""
    with Bed() as bed:
        flow = Flow("flow", bed.folder / "flow")
        flow.add("bomb", "bomb", tick=1000, env={"FAULTS_PROCESSES": "20"})
        bed.start(flow)
        if not bed.comes(lambda: flow.counts("bomb")[0] == 20):
            raise DamageError("the node does not get to its forks")
        holder = bed.holder()
        bed.signal(bed.daemon_pid(), signal.SIGKILL)
        holder.kill()
        left = len(bed.processes())
        bed.dora("up")
        ours = {bed.daemon_pid(), bed.holder().pid}
        if not bed.comes(lambda: {p.pid for p in bed.processes()} <= ours, 15):
            bed.faults.append(f"of {left} orphans {len(bed.processes()) - 2} are still there")
    return Outcome(f"{left} orphans, all ended by the next daemon", bed.faults)


def _pids(bed: Bed, *flows: Flow) -> dict[str, int | None]:
    return {name: node.pid for flow in flows for name, node in bed.nodes(flow).items()}


def _all_run(bed: Bed, *flows: Flow) -> None:
    if not bed.comes(lambda: all(bed.statuses(flow) == ["running"] for flow in flows)):
        found = {flow.name: bed.statuses(flow) for flow in flows}
        raise DamageError(f"not all dataflows run again: {found}")
