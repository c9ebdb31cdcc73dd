"""Counts, rates, latencies and drops of the streams that the sink receives."""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Tally:
    """Counts of one stream of messages that carry the number of their frame."""

    frames: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """When each message was received, on the monotonic clock."""
    latencies_ms: list[float] = field(default_factory=list)
    """Time from the capture of the frame until then."""

    def add(self, frame: int, captured_ns: int, received_ns: int) -> float:
        """Count one message and return its latency in milliseconds."""
        latency_ms = (received_ns - captured_ns) / 1e6
        self.frames.append(frame)
        self.seconds.append(received_ns / 1e9)
        self.latencies_ms.append(latency_ms)
        return latency_ms

    @property
    def count(self) -> int:
        """Messages received."""
        return len(self.frames)

    @property
    def rate_hz(self) -> float:
        """Messages a second, from the first to the last one."""
        if self.count < 2:
            return 0.0
        return (self.count - 1) / (self.seconds[-1] - self.seconds[0])

    @property
    def drops(self) -> int:
        """Frame numbers left out between the first and the last one received."""
        return self.frames[-1] - self.frames[0] + 1 - self.count if self.frames else 0

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the latency; NaN when nothing was received."""
        return float(np.percentile(self.latencies_ms, percent)) if self.frames else float("nan")


def table(frames: Tally, detections: Tally, faces: int) -> str:
    """Return the counts as the lines that the sink prints at the end."""
    head = f"{'':<12}{'received':>9}{'rate':>10}{'latency p50':>14}{'p99':>11}{'drops':>9}"
    rows = [
        f"{name:<12}{tally.count:>9}{tally.rate_hz:>7.1f} Hz"
        f"{tally.percentile_ms(50):>11.2f} ms{tally.percentile_ms(99):>8.2f} ms{tally.drops:>9}"
        for name, tally in (("frames", frames), ("detections", detections))
    ]
    return "\n".join(
        [
            head,
            *rows,
            f"{'faces':<12}{faces:>9}",
            "latency: from the camera's capture until the sink has it",
            "drops: gaps in the frame numbers; the detector skips frames on purpose",
            "       (queue_size: 1, always the newest)",
        ]
    )
