"""The campaigns against the daemon itself: SIGKILL at random moments, then another daemon."""

import signal
import time
from collections import Counter
from random import Random

import yaml

from hwtests.faults.campaigns import Outcome, check_descriptors, check_undisturbed, repeat
from hwtests.faults.flow import RESTARTED, Flow
from hwtests.faults.testbed import TIMEOUT_S, DamageError, Testbed


def daemon(seconds: float, rng: Random) -> Outcome:
    """Kill the daemon: data never stops, no line is lost or doubled, every node is adopted."""
    kills = node_kills = 0
    with Testbed() as testbed:
        undisturbed, faulty, talk = flows = [
            Flow(name, testbed.folder / name) for name in ("undisturbed", "faulty", "talk")
        ]
        undisturbed.add_chain("undisturbed")
        faulty.add_chain("faulty", **RESTARTED)
        talk.add("talk", "talk", tick=5, env={"FAULTS_LINES": "10"})
        uuids = [testbed.start(flow) for flow in flows]
        pids = _pids(testbed, undisturbed, talk)
        open_before = testbed.descriptors()
        # The first absence is long: data that stops without a daemon would show.
        away = 2.0
        for _ in repeat(seconds):
            time.sleep(rng.expovariate(2.0))
            node_pid = rng.choice(
                [node.pid for node in testbed.nodes(faulty).values() if node.pid] or [0]
            )
            if not testbed.signal(testbed.daemon_pid(), signal.SIGKILL):
                raise DamageError("the daemon has exited already")
            kills += 1
            if rng.random() < 0.5:
                node_kills += testbed.signal(node_pid, signal.SIGKILL)
            time.sleep(away)
            away = rng.expovariate(4.0)
            testbed.dora("up")
            if (now := _pids(testbed, undisturbed, talk)) != pids:
                raise DamageError(f"nodes were not adopted: {pids} became {now}")
            _all_run(testbed, *flows)
        testbed.wait_for_data(undisturbed, faulty)
        pause = check_undisturbed(testbed, undisturbed)
        open_after = testbed.descriptors()
        check_descriptors(testbed, open_before, open_after)
        for flow in flows:
            testbed.stop(flow)
        testbed.faults += talk.wrong_lines(uuids[2], "talk")
        testbed.collect_faults(flows)
        received = undisturbed.received() + faulty.received()
        lines = talk.counts("talk")[0]
    summary = (
        f"{kills} kills of dorad, {node_kills} of nodes meanwhile; {received} messages verified,"
        f" longest pause {pause:.2f} s; {lines} log lines, each once;"
        f" descriptors of dorad and holder {open_before} before, {open_after} after"
    )
    return Outcome(summary, testbed.faults)


def busy(seconds: float, rng: Random) -> Outcome:
    """Kill the daemon in the middle of a command: all nodes run afterwards, or none."""
    kills: Counter[str] = Counter()
    survived = 0
    with Testbed() as testbed:
        undisturbed = Flow("undisturbed", testbed.folder / "undisturbed")
        undisturbed.add_chain("undisturbed")
        testbed.start(undisturbed)
        for turn in repeat(seconds):
            flow = Flow(f"brief-{turn}", testbed.folder / f"brief-{turn}")
            flow.add_chain("brief")
            flow.write()
            commands = _commands(flow)
            verb = rng.choice(list(commands))
            if verb != "start":
                testbed.start(flow)
            command = testbed.begin(*commands[verb])
            time.sleep(rng.uniform(0.0, 1.0))
            if not testbed.signal(testbed.daemon_pid(), signal.SIGKILL):
                raise DamageError("the daemon has exited already")
            kills[verb] += 1
            testbed.dora("up")
            command.wait(TIMEOUT_S)
            if verb not in _ENDING:
                if testbed.statuses(flow) != ["running"]:
                    raise DamageError(f"killed during `dora {verb}`, then {testbed.statuses(flow)}")
                if extra := testbed.nodes(flow).keys() - {node["id"] for node in flow.nodes}:
                    raise DamageError(f"killed during `dora {verb}`, then {extra} are left")
            if "starting" in testbed.statuses(flow) or "running" in testbed.statuses(flow):
                survived += 1
                testbed.wait_for_data(flow)
                testbed.stop(flow)
            if not testbed.wait_until_ended(flow):
                left = len(testbed.processes_of(flow))
                raise DamageError(
                    f"killed during `dora {verb}`, then {testbed.statuses(flow)}:"
                    f" {left} nodes are left"
                )
            testbed.collect_faults([flow])
        testbed.wait_for_data(undisturbed)
        pause = check_undisturbed(testbed, undisturbed)
        testbed.collect_faults([undisturbed])
    summary = ", ".join(f"{count} during `dora {verb}`" for verb, count in kills.items())
    summary += f"; {survived} dataflows ran then; longest pause of others {pause:.2f} s"
    return Outcome(summary, testbed.faults)


_ENDING = ("start", "stop", "stop --force", "restart")
"""Commands after which, or instead of which, a dataflow may have ended."""


def _commands(flow: Flow) -> dict[str, tuple[str, ...]]:
    """Return commands about a dataflow with the chain `brief`, by their names."""
    replacement = flow.folder / "pass.yml"
    replacement.write_text(yaml.safe_dump(flow.nodes[1]))
    node = ("brief_pass", "--dataflow", flow.name)
    return {
        "start": ("start", str(flow.file), "--name", flow.name, "--detach"),
        "stop": ("stop", flow.name),
        "stop --force": ("stop", flow.name, "--force"),
        "restart": ("restart", flow.name),
        "node restart": ("node", "restart", *node),
        "node replace": ("node", "replace", *node, "--from-yaml", str(replacement)),
        "param set": ("param", "set", "brief_pass", "speed", "0.5", *node[1:]),
        "enable": ("enable", flow.name),
        "record": (
            *("record", "--attach", flow.name, "--duration", "1s"),
            *("-o", str(flow.folder / "run.mcap")),
        ),
    }


def lost(_seconds: float, _rng: Random) -> Outcome:
    """Kill daemon and holder at once: the next daemon leaves no orphan."""
    with Testbed() as testbed:
        flow = Flow("flow", testbed.folder / "flow")
        flow.add("bomb", "bomb", tick=1000, env={"FAULTS_PROCESSES": "20"})
        testbed.start(flow)
        if not testbed.wait_until(lambda: flow.counts("bomb")[0] == 20):
            raise DamageError("the node does not finish its forks")
        holder = testbed.holder()
        testbed.signal(testbed.daemon_pid(), signal.SIGKILL)
        holder.kill()
        left = len(testbed.processes())
        testbed.dora("up")
        ours = {testbed.daemon_pid(), testbed.holder().pid}
        if not testbed.wait_until(lambda: {p.pid for p in testbed.processes()} <= ours, 15):
            testbed.faults.append(f"of {left} orphans {len(testbed.processes()) - 2} still run")
    return Outcome(f"{left} orphans, all ended by the next daemon", testbed.faults)


def _pids(testbed: Testbed, *flows: Flow) -> dict[str, int | None]:
    return {name: node.pid for flow in flows for name, node in testbed.nodes(flow).items()}


def _all_run(testbed: Testbed, *flows: Flow) -> None:
    if not testbed.wait_until(lambda: all(testbed.statuses(flow) == ["running"] for flow in flows)):
        found = {flow.name: testbed.statuses(flow) for flow in flows}
        raise DamageError(f"not all dataflows run again: {found}")
