"""The changes since the last report to a coordinator."""

from collections.abc import Mapping

import msgspec

from dorad.control.messages.agent import ShareState
from dorad.control.messages.releases import ReleaseState
from dorad.control.shortening import short_release, short_share

MAX_USUAL = 16 << 10
"""Bytes of a state that is reported as it is: all that a robot may have fit into a frame."""


class Deltas:
    """Compares all states with those that were reported last."""

    def __init__(self) -> None:
        """Begin with nothing reported: the first report has all of them."""
        self._reported: dict[str, ShareState] = {}
        self._releases: dict[str, ReleaseState] = {}

    def take(self, states: Mapping[str, ShareState]) -> tuple[list[ShareState], list[str]]:
        """Return the changed states and the names of removed shares, and take both as reported."""
        known = {name: _without_noise(state) for name, state in states.items()}
        changed = [
            short_share(states[name], MAX_USUAL)
            for name in states
            if known[name] != self._reported.get(name)
        ]
        removed = [name for name in self._reported if name not in states]
        self._reported = known
        return changed, removed

    def take_releases(self, states: Mapping[str, ReleaseState]) -> list[ReleaseState]:
        """Return the changed states, and take them as reported.

        One that was forgotten is among them once, without a release.
        """
        known = {name: _without_measures(state) for name, state in states.items()}
        changed = [
            short_release(states[name], MAX_USUAL)
            for name in states
            if known[name] != self._releases.get(name)
        ]
        for name, state in self._releases.items():
            if name not in states:
                gone = {"phase": "confirmed", "release": "", "running": "", "confirmed": ""}
                changed.append(msgspec.structs.replace(state, **gone, previous="", reason=""))
        self._releases = known
        return changed


def _without_measures(state: ReleaseState) -> ReleaseState:
    """Return a state without the figures in its evidence, which always differ."""
    evidence = [msgspec.structs.replace(each, text="") for each in state.evidence]
    return msgspec.structs.replace(state, evidence=evidence)


def _without_noise(state: ShareState) -> ShareState:
    """Return a state without what is measured of links, which always differs."""
    links = {
        name: msgspec.structs.replace(link, round_trip_us=None, clock_us=None, clock_margin_us=0)
        for name, link in state.links.items()
    }
    return msgspec.structs.replace(state, links=links)
