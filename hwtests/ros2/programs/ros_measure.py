"""What a receiver measures, in whichever Python it runs."""

import json
import time
from pathlib import Path

BEGUN, ENDED = "begun", "ended.json"
QUIET_S = 5.0
"""Without a message for so long, the rest is lost."""


class Measure:
    """Latencies of messages, and the CPU of this process for them, after some to warm up."""

    def __init__(self, warm: int, count: int) -> None:
        self._warm, self._count = warm, count
        self._seen = 0
        self._latencies: list[int] = []
        self._cpu_ns = 0

    def take(self, sent_ns: int) -> bool:
        """Take a message that was sent at a monotonic time; return True after the last one."""
        latency_ns = time.monotonic_ns() - sent_ns
        self._seen += 1
        if self._seen > self._warm:
            self._latencies.append(latency_ns)
        if self._seen == self._warm:
            self._cpu_ns = time.process_time_ns()
            Path(BEGUN).touch()
        return self._seen == self._count

    def end(self) -> None:
        """Write what was measured."""
        used = time.process_time_ns() - self._cpu_ns
        lost = self._count - self._seen
        text = json.dumps({"latencies": self._latencies, "cpu_ns": used, "lost": lost})
        Path("written").write_text(text)
        Path("written").rename(ENDED)
