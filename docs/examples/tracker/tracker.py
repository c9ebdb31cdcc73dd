"""Gives positions the numbers of tracks."""

import math
from dataclasses import dataclass, field

import pyarrow as pa
from dora import Node

NEAR_PIXELS = 10.0


@dataclass
class Track:
    """Where one object was."""

    number: int
    places: list[tuple[float, float]] = field(default_factory=list)


class Tracker:
    """All tracks."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []

    def assign(self, position: tuple[float, float], taken: set[int]) -> Track:
        """Return the nearest track that is not taken, or a new one, with the position added."""
        near = [
            (math.dist(track.places[-1], position), track.number)
            for track in self.tracks
            if track.number not in taken
        ]
        distance, number = min(near, default=(math.inf, 0))
        if distance > NEAR_PIXELS:
            number = len(self.tracks) + 1
            self.tracks.append(Track(number))
        track = self.tracks[number - 1]
        track.places.append(position)
        return track


def main() -> None:
    """Send numbered positions, and print all tracks at the end."""
    node = Node()
    tracker = Tracker()
    for event in node:
        if event["type"] != "INPUT":
            continue
        numbered: list[dict[str, float]] = []
        # The topmost first gets the lower number at the beginning.
        for spot in sorted(event["value"].to_pylist(), key=lambda spot: spot["y"]):
            track = tracker.assign(
                (spot["x"], spot["y"]), {int(each["track"]) for each in numbered}
            )
            numbered.append({"track": track.number, **spot})
        node.send_output("tracks", pa.array(numbered))
    for track in tracker.tracks:
        first, last = track.places[0], track.places[-1]
        ends = f"from ({first[0]:.0f}, {first[1]:.0f}) to ({last[0]:.0f}, {last[1]:.0f})"
        print(f"track {track.number}: {len(track.places)} pictures, {ends}")


if __name__ == "__main__":
    main()
