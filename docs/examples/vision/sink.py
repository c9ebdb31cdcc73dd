"""Joins frames and faces, measures how late both arrive, and keeps the best picture.

At the end (Ctrl-C, `--stop-after`, or the end of the camera) it writes the picture and prints
a table.
"""

import time
from collections import OrderedDict
from pathlib import Path

from dora import Node
from picture import Moment, Pixels, draw
from tally import Tally, table

REMEMBERED_FRAMES = 30
"""One second: longer than any detection takes."""

PICTURE = Path(__file__).parent / "out" / "faces.png"


def merit(moment: Moment) -> float:
    """Return how good a picture this is: big faces, near the middle."""
    middle = moment.image.shape[1] / 2
    return sum(f["width"] - abs(f["x"] + f["width"] / 2 - middle) / 3 for f in moment.faces)


def main() -> None:
    """Receive until the stream ends, then report."""
    frames, detections, faces = Tally(), Tally(), 0
    recent: OrderedDict[int, tuple[Pixels, float]] = OrderedDict()
    best: Moment | None = None

    node = Node()
    shown_ns = time.monotonic_ns()
    for event in node:
        received_ns = time.monotonic_ns()
        if received_ns - shown_ns >= 1_000_000_000:
            shown_ns = received_ns
            print(f"{frames.count} frames, {detections.count} examined, {faces} faces")
        if event["type"] != "INPUT":
            continue
        metadata = event["metadata"]
        number = metadata["frame"]
        if event["id"] == "image":
            # Not a copy: the pixels stay where the camera wrote them for as long as we hold them.
            pixels = event["value"].to_numpy()
            image = pixels.reshape(metadata["height"], metadata["width"], 3)
            recent[number] = (image, frames.add(number, metadata["captured_ns"], received_ns))
            if len(recent) > REMEMBERED_FRAMES:
                recent.popitem(last=False)
        elif event["id"] == "faces":
            latency_ms = detections.add(number, metadata["captured_ns"], received_ns)
            found = event["value"].to_pylist()
            faces += len(found)
            if number in recent:
                image, frame_ms = recent[number]
                moment = Moment(number, image, found, frame_ms, latency_ms)
                if best is None or merit(moment) > merit(best):
                    best = moment

    if best is not None:
        PICTURE.parent.mkdir(exist_ok=True)
        draw(best, frames, detections).save(PICTURE)
    print(table(frames, detections, faces))
    why = (
        "all faces came a second after their frame" if detections.count else "no frame was examined"
    )
    print(f"picture: {PICTURE}" if best else f"picture: none, {why}")


if __name__ == "__main__":
    main()
