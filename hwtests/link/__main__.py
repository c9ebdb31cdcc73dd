"""Measure one output between two machines, beside raw Zenoh and dora 1.1.0.

All systems take turns, in as many rounds as fit into the time; each figure is the median of the
rounds, and each ratio the median of those of the same round. A measurement that fails is reported,
and the others go on.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from hwtests.bench.process import MeasurementError
from hwtests.bench.systems import ensure_peers
from hwtests.link import raw, stopped
from hwtests.link.cases import SIZES, Case, Times, cases, figure
from hwtests.link.network import LOOPBACK, Network, has_namespaces, namespaces
from hwtests.link.ours import Pair
from hwtests.link.page import OURS, PEER, RAW, Results, missed, page
from hwtests.link.peer import Peer

KEPT = Path(__file__).parents[2] / "docs/bench/links.md"


class Systems(NamedTuple):
    """What is measured in one network."""

    network: Network
    pair: Pair
    peer: Peer | None

    def of(self, case: Case) -> Iterator[tuple[str, Callable[[Case, float], Times]]]:
        """Yield the systems that can do a case, with the function that measures each."""
        yield OURS, self.pair.measure
        yield RAW, lambda each, scale: raw.measure(each, scale, self.pair.folder, self.network)
        if self.peer is not None and case.scheme == "tcp":
            yield PEER, self.peer.measure


def measure(options: argparse.Namespace, places: dict[str, Systems]) -> Results:
    """Measure everything, as often as there is time for it."""
    results = Results({}, None, [], 0)
    begin = time.monotonic()
    todo = cases(list(places), options.scheme or ("tcp", "tls"), options.size or SIZES)
    try:
        results = results._replace(stopped=stopped.measure(places["loopback"].pair))
    except MeasurementError as error:
        _fail(results, f"the receiver that stands still: {error}")
    for number in range(options.rounds):
        started = time.monotonic()
        for case in todo:
            for name, act in places[case.network].of(case):
                if time.monotonic() > begin + options.minutes * 60:
                    sys.stderr.write(f"the time is over in round {number + 1}\n")
                    return results
                _measure_one(results, number, case, name, act, options.scale)
        results = results._replace(rounds=number + 1)
        left = begin + options.minutes * 60 - time.monotonic()
        if left < time.monotonic() - started:
            break
    return results


def _measure_one(
    results: Results,
    number: int,
    case: Case,
    name: str,
    act: Callable[[Case, float], Times],
    scale: float,
) -> None:
    try:
        result = figure(case, act(case, scale), case.count(scale))
    except MeasurementError as error:
        _fail(results, f"{name}, {case}: {error}")
        return
    results.figures.setdefault((case, name), {})[number] = result
    sys.stderr.write(f"{name} {case}: {result}\n")


def _fail(results: Results, text: str) -> None:
    sys.stderr.write(f"failed: {text}\n")
    results.failures.append(text.splitlines()[0])


def main() -> int:
    """Measure and print; return 1 if a measurement failed, 0 also if targets are missed."""
    options = argparse.ArgumentParser(prog="python -m hwtests.link", description=__doc__)
    options.add_argument("--rounds", type=int, default=3, help="at most; default %(default)s")
    options.add_argument(
        "--minutes", type=float, default=30.0, help="no measurement begins later (%(default)s)"
    )
    options.add_argument("--scale", type=float, default=1.0, help="messages, as a share")
    options.add_argument("--size", type=int, action="append", help="only this size, in bytes")
    options.add_argument("--scheme", choices=("tcp", "tls"), action="append")
    options.add_argument("--no-peers", action="store_true", help="without dora 1.1.0")
    options.add_argument("--no-namespaces", action="store_true", help="on loopback only")
    options.add_argument(
        "--peers",
        type=Path,
        default=Path(".venv-peers"),
        metavar="VENV",
        help="where dora 1.1.0 is, or is to be installed (default: %(default)s)",
    )
    options.add_argument("--write", action="store_true", help=f"write docs/bench/{KEPT.name}")
    given = options.parse_args()
    try:
        if not given.no_peers:
            ensure_peers(given.peers)
        with tempfile.TemporaryDirectory(prefix="dora-link-") as folder, ExitStack() as stack:
            places = {}
            networks = [LOOPBACK]
            if has_namespaces() and not given.no_namespaces:
                networks.append(stack.enter_context(namespaces()))
            for network in networks:
                pair = Pair(Path(folder), network)
                stack.enter_context(pair.up())
                peer = None if given.no_peers else Peer(given.peers.resolve(), network)
                places[network.name] = Systems(network, pair, peer)
            results = measure(given, places)
    except MeasurementError as error:
        sys.stderr.write(f"failed: {error}\n")
        return 1
    text = page(results)
    sys.stdout.write(text)
    if given.write:
        KEPT.write_text(text, encoding="utf-8")
    sys.stderr.writelines(f"missed: {line}\n" for line in missed(results))
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
