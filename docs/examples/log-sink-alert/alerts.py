"""Makes alerts of log lines, with a pause for each node and severity."""

import json
import time

import pyarrow as pa
from dora import Node

PAUSE_S = 60.0
LINES = 20


class Limiter:
    """Decides which alerts are sent."""

    def __init__(self, pause_s: float) -> None:
        self.held_back = 0
        self._pause_s = pause_s
        self._last: dict[tuple[str, str], float] = {}

    def passes(self, node: str, severity: str, now: float) -> bool:
        """Return whether an alert is due; count it if not."""
        last = self._last.get((node, severity))
        if last is not None and now - last < self._pause_s:
            self.held_back += 1
            return False
        self._last[node, severity] = now
        return True


def main() -> None:
    """Send alerts until twenty lines have come: then the two machines have ended."""
    node = Node()
    limiter = Limiter(PAUSE_S)
    lines = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        lines += 1
        entry = json.loads(event["value"][0].as_py())
        if limiter.passes(entry["node_id"], entry["level"], time.monotonic()):
            alert = {key: entry[key] for key in ("node_id", "level", "message", "timestamp")}
            node.send_output("alert", pa.array([json.dumps(alert)]))
        if lines == LINES:
            break
    print(f"{lines - limiter.held_back} alerts, {limiter.held_back} similar lines held back")


if __name__ == "__main__":
    main()
