"""Judge the health of a dataflow on probation. Pure: successive observations to a verdict."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType

import msgspec

from dorad.agent.assignments.model import Applied, Baseline, Down, Health
from dorad.agent.assignments.steps import MAX_CAUSE, MAX_DOWN
from dorad.control.messages import LinkPeer, NodeInfo
from dorad.control.messages.releases import Evidence, HealthRules
from dorad.dataflow.model import LINK

MISSES_FACTOR = 2.0
"""How many times as many deadlines as before a node may miss."""
UNBLAMED = frozenset(
    {"exited with code 0", "was restarted by a command", "was replaced by a command"}
)
"""How a process ended, in the daemon's words, if that is no failure."""
_STEADY, _TO, _SILENT, _BEFORE = "steady", "link to ", "gets nothing on: ", "; before that "
"""Parts of evidence. All but the first may be about other machines."""
MIN_MESSAGES = 2.0
"""Minimum number of expected messages from which a rate can be checked."""


class Measurement(msgspec.Struct, frozen=True):
    """The daemon's figures of a dataflow at a moment of a monotonic clock."""

    at: float
    nodes: list[NodeInfo]
    sent: dict[str, int]
    """Messages since the start, of each output with a receiver."""
    notices: list[str]
    """Warnings of the daemon."""


class Watch(msgspec.Struct, frozen=True):
    """A time during which everything was steady, from its first to its last measurement."""

    first: Measurement
    last: Measurement
    interrupted: str = ""
    """What ended the steady time before this one."""

    @property
    def seconds(self) -> float:
        """The length of the time."""
        return self.last.at - self.first.at

    @property
    def rates(self) -> dict[str, float]:
        """Messages per second of each output."""
        if self.seconds <= 0:
            return {}
        before = self.first.sent
        return {
            name: (count - before.get(name, 0)) / self.seconds
            for name, count in self.last.sent.items()
        }

    @property
    def settled(self) -> list[str]:
        """The outputs that had begun before this time: their rates have no start-up in them."""
        return [name for name, rate in self.rates.items() if rate > 0 and self.first.sent.get(name)]

    @property
    def misses(self) -> dict[str, float]:
        """Missed deadlines per second of each node."""
        before = {each.node: each.deadline_misses or 0 for each in self.first.nodes}
        return {
            each.node: max(0, (each.deadline_misses or 0) - before[each.node]) / self.seconds
            for each in self.last.nodes
            if self.seconds > 0 and each.node in before
        }


def watch(before: Watch | None, seen: Measurement, baseline: Baseline) -> Watch:
    """Return the steady time that ends with an observation; a new one if something happened."""
    if before is None:
        return Watch(seen, seen)
    bad = next((each for each in _steady(before, seen, baseline) if not each.ok), None)
    if bad is not None:
        return Watch(seen, seen, f"{bad.check} {bad.text}")
    return Watch(before.first, seen, before.interrupted)


def learn(before: Watch | None, seen: Measurement, rules: HealthRules) -> tuple[Watch, Watch]:
    """Return the steady time of a confirmed release that ends now, and the one to continue with.

    Each steady time is as long as one before a confirmation; the next one begins where it ends.
    """
    watched = watch(before, seen, Baseline(notices=seen.notices))
    following = Watch(seen, seen) if watched.seconds >= rules.min_healthy_time else watched
    return watched, following


def is_due(watched: Watch, rules: HealthRules, baseline: Baseline) -> bool:
    """Return True if everything but the probes is healthy for long enough to run the probes."""
    return watched.seconds >= rules.min_healthy_time and all(
        each.ok for each in _checks(watched, rules, baseline)
    )


def judge(
    watched: Watch,
    rules: HealthRules,
    baseline: Baseline,
    probes: list[Evidence] | None,
    links: Mapping[str, LinkPeer] = MappingProxyType({}),
) -> Health:
    """Return the verdict on a steady time; `probes` are None before they have run.

    `links` are those to the other machines of the dataflow.
    """
    evidence = list(_checks(watched, rules, baseline))
    steady = watched.seconds >= rules.min_healthy_time
    # Without how long it has been: a report that differs only in figures is not sent.
    text = f"for {'' if steady else 'less than '}{rules.min_healthy_time:g} s"
    if not steady and watched.interrupted:
        text += f"{_BEFORE}{watched.interrupted}"
    evidence.append(Evidence(check=_STEADY, ok=steady, text=text))
    evidence += probes or []
    evidence += [_link(name, peer) for name, peer in sorted(links.items())]
    linked = all(peer.state == "up" for peer in links.values())
    healthy = is_due(watched, rules, baseline) and (
        not rules.probes or (probes is not None and all(each.ok for each in probes))
    )
    fatal = [each for each in evidence if not each.ok and each.check == "daemon"]
    fatal += [each for each in evidence if not each.ok and each.text.startswith("has failed")]
    return Health(
        evidence=evidence,
        healthy=healthy and linked,
        fatal="" if not fatal else f"{fatal[0].check} {fatal[0].text}",
        rates={name: rate for name, rate in watched.rates.items() if rate > 0},
        # The daemon keeps the link alive, and ends it with the last node.
        nodes=[
            each.node
            for each in watched.last.nodes
            if each.status == "running" and each.node != LINK
        ],
        misses=watched.misses,
        settled=watched.settled,
    )


def down_of(
    nodes: Iterable[NodeInfo], baseline: Baseline, sources: Mapping[str, Collection[str]]
) -> Down:
    """Return the nodes of the baseline that do not run; `sources` are the nodes that feed each.

    A node whose inputs have closed has finished if all its sources have. Why a source on another
    machine has ended is not known here. It is assumed that it runs again: the nodes that it fed are
    reported as ended, and run again with it. The coordinator can tell by that machine's report.
    """
    nodes = list(nodes)
    failed: dict[str, str] = {}
    ended: dict[str, str] = {}
    drained: list[str] = []
    finished: list[str] = []
    for node in nodes:
        last = node.last_exit or "gave no reason"
        why = _how(node) or last
        match node.status:
            case _ if node.dynamic:
                continue
            case "failed":
                failed[node.node] = f"has failed: it {why}"
            case "restarting" if last not in UNBLAMED:
                failed[node.node] = f"waits for its restart: it {why}"
            case "stopped" if node.ended_by is None:
                finished.append(node.node)
            case "stopped" if node.ended_by == "inputs":
                drained.append(node.node)
            case "stopped":
                ended[node.node] = "was stopped by a command"
    finished += _ended_with(drained, sources, finished)
    elsewhere = drained_elsewhere(nodes, sources)
    for name in drained:
        if name not in finished:
            inputs = "inputs from other machines" if name in elsewhere else "inputs"
            ended[name] = f"has ended: its {inputs} closed"
    ran = set(baseline.nodes)
    return Down(_first(failed, ran), _first(ended, ran), finished)


def drained_elsewhere(
    nodes: Iterable[NodeInfo], sources: Mapping[str, Collection[str]]
) -> set[str]:
    """Return the nodes that have ended because nodes of other machines have.

    They are no failure of this machine, which cannot start them again before those send again.
    """
    known = {each.node: each for each in nodes}
    ended = {name: each.ended_by for name, each in known.items() if each.status == "stopped"}
    drained = [name for name, by in ended.items() if by == "inputs"]
    done = [name for name, by in ended.items() if by is None and not known[name].dynamic]
    away = {name for fed in sources.values() for name in fed} - known.keys()
    finished = _ended_with(drained, sources, done)
    return {*_ended_with(drained, sources, {*done, *away})} - {*finished}


def _ended_with(
    drained: Iterable[str], sources: Mapping[str, Collection[str]], ended: Iterable[str]
) -> list[str]:
    """Return the drained nodes all of whose sources have ended, or have ended with such ones."""
    nodes: list[str] = []
    known, left = {*ended}, [name for name in drained if sources.get(name)]
    while more := [name for name in left if set(sources[name]) <= known]:
        nodes += more
        known.update(more)
        left = [name for name in left if name not in known]
    return nodes


def _first(texts: Mapping[str, str], ran: Collection[str]) -> dict[str, str]:
    shown = [(name, text[:MAX_CAUSE]) for name, text in texts.items() if name in ran]
    return dict(shown[:MAX_DOWN])


def _checks(watched: Watch, rules: HealthRules, baseline: Baseline) -> Iterator[Evidence]:
    yield from _steady(watched, watched.last, baseline)
    yield from _outputs(watched, rules, baseline)


def _steady(before: Watch, seen: Measurement, baseline: Baseline) -> Iterator[Evidence]:
    """Yield the checks that must pass at each moment of the time."""
    known = {each.node: each for each in before.first.nodes}
    for node in seen.nodes:
        yield _node(known.get(node.node), node, baseline, seen.at - before.first.at)
    if set(known) != {each.node for each in seen.nodes}:
        yield Evidence(check="nodes", ok=False, text="nodes were added or removed")
    new = [text for text in seen.notices if text not in baseline.notices]
    text = "no new notice" if not new else f"has a new notice: {new[0][:300]}"
    yield Evidence(check="daemon", ok=not new, text=text)
    fewer = [name for name, count in before.last.sent.items() if seen.sent.get(name, 0) < count]
    if fewer:
        yield Evidence(check=f"output {fewer[0]}", ok=False, text="its counter was reset")


def _link(machine: str, peer: LinkPeer) -> Evidence:
    text = "is up" if peer.state == "up" else f"is not up: {peer.reason or peer.state}"
    return Evidence(check=f"{_TO}{machine}", ok=peer.state == "up", text=text)


def is_about_links(evidence: Evidence, applied: Applied | None) -> bool:
    """Return True if another machine, or the way to it, may be the cause of a failed check."""
    check, here = evidence.check, {} if applied is None else applied.nodes
    if check.startswith("output "):
        return check.removeprefix("output ").partition("/")[0] not in here
    if check == _STEADY:
        return _BEFORE not in evidence.text or _SILENT in evidence.text
    return check.startswith(_TO) or evidence.text.startswith(_SILENT)


def _how(node: NodeInfo) -> str:
    """Return how the last process of a node has ended, with the error that it wrote."""
    error = f": {node.last_error}" if node.last_error else ""
    return f"{node.last_exit or ''}{error}"[:MAX_CAUSE]


def _node(before: NodeInfo | None, now: NodeInfo, baseline: Baseline, seconds: float) -> Evidence:
    check = f"node {now.node}"
    if now.dynamic:
        return Evidence(check=check, ok=True, text="is dynamic")
    if now.status == "failed":
        return Evidence(check=check, ok=False, text=f"has failed: {_how(now) or 'no reason'}")
    if now.status == "stopped":
        # A node may end after its work at the start, unless it kept running before.
        ran = now.node in baseline.nodes
        return Evidence(check=check, ok=not ran, text=f"has ended: {now.last_exit or 'stopped'}")
    if now.broken_inputs:
        broken = ", ".join(now.broken_inputs)
        return Evidence(check=check, ok=False, text=f"{_SILENT}{broken}")
    if now.status != "running":
        why = _how(now) and f": {_how(now)}"
        return Evidence(check=check, ok=False, text=f"is {now.status}{why or ''}")
    if before is None or (before.pid, before.restarts) != (now.pid, now.restarts):
        why = _how(now) and f": it {_how(now)}"
        return Evidence(check=check, ok=False, text=f"has started again{why or ''}")
    missed = (now.deadline_misses or 0) - (before.deadline_misses or 0)
    # Without a release to compare with, the usual number is unknown.
    usual = baseline.misses.get(now.node)
    if usual is not None and missed > MISSES_FACTOR * usual * seconds:
        text = f"missed {missed} deadlines in {seconds:.1f} s, before {usual * seconds:.1f}"
        return Evidence(check=check, ok=False, text=text)
    return Evidence(check=check, ok=True, text="runs")


def _outputs(watched: Watch, rules: HealthRules, baseline: Baseline) -> Iterator[Evidence]:
    """Yield whether each output carries as much as before."""
    rates, sent = watched.rates, watched.last.sent
    wanted = {
        name: rate * rules.min_rate for name, rate in baseline.rates.items() if name in sent
    } | rules.rates
    for name in sorted((wanted.keys() | sent.keys()) - set(rules.quiet)):
        if name not in sent:
            yield Evidence(check=f"output {name}", ok=False, text="no node receives it")
        elif name not in wanted:
            text = f"{rates.get(name, 0.0):.4g}/s; no rate to compare it with is known yet"
            yield Evidence(check=f"output {name}", ok=True, text=text)
        elif wanted[name] * watched.seconds < MIN_MESSAGES and name not in rules.rates:
            yield Evidence(check=f"output {name}", ok=True, text="is too rare to be judged")
        else:
            rate = rates.get(name, 0.0)
            yield Evidence(
                check=f"output {name}",
                ok=rate >= wanted[name],
                text=f"{rate:.4g}/s, at least {wanted[name]:.4g}",
            )
