"""Measure one output between two machines on loopback, beside raw Zenoh and dora 1.1.0.

All systems take turns, and each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hwtests.bench.process import MeasurementError
from hwtests.bench.systems import ensure_peers
from hwtests.link import raw, stopped
from hwtests.link.cases import SIZES, Case, figure
from hwtests.link.ours import Pair
from hwtests.link.page import OURS, PEER, RAW, Figures, missed, page
from hwtests.link.peer import Peer

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwtests.link.cases import Times
    from hwtests.link.stopped import Stopped

KEPT = Path(__file__).parents[2] / "docs/bench/links.md"


def measure(options: argparse.Namespace, pair: Pair, peer: Peer | None) -> tuple[Figures, Stopped]:
    """Measure everything.

    Raises:
        MeasurementError: one measurement failed.
    """
    figures: Figures = {}
    cases = [
        Case(scheme, size, paced)
        for scheme in options.scheme or ("tcp", "tls")
        for paced in (True, False)
        for size in options.size or SIZES
    ]
    for number in range(options.rounds):
        for case in cases:
            systems: dict[str, Callable[[Case, float], Times]] = {OURS: pair.measure}
            systems[RAW] = lambda each, scale: raw.measure(each, scale, pair.folder)
            if peer is not None and case.scheme == "tcp":
                systems[PEER] = peer.measure
            for name, act in systems.items():
                times = act(case, options.scale)
                result = figure(case, times, case.count(options.scale))
                figures.setdefault((case, name), []).append(result)
                sys.stderr.write(f"round {number + 1}: {name} {case}: {result}\n")
    return figures, stopped.measure(pair)


def main() -> int:
    """Measure and print; return 1 if a measurement failed, 0 also if targets are missed."""
    options = argparse.ArgumentParser(prog="python -m hwtests.link", description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--scale", type=float, default=1.0, help="messages, as a share")
    options.add_argument("--size", type=int, action="append", help="only this size, in bytes")
    options.add_argument("--scheme", choices=("tcp", "tls"), action="append")
    options.add_argument("--no-peers", action="store_true", help="without dora 1.1.0")
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
        peer = None
        if not given.no_peers:
            ensure_peers(given.peers)
            peer = Peer(given.peers.resolve())
        with tempfile.TemporaryDirectory(prefix="dora-link-") as folder:
            pair = Pair(Path(folder))
            with pair.up():
                figures, disturbed = measure(given, pair, peer)
    except MeasurementError as error:
        sys.stderr.write(f"failed: {error}\n")
        return 1
    text = page(figures, disturbed, given.rounds)
    sys.stdout.write(text)
    if given.write:
        KEPT.write_text(text, encoding="utf-8")
    sys.stderr.writelines(f"missed: {line}\n" for line in missed(figures, disturbed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
