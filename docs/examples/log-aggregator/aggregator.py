"""Counts log lines by node and severity."""

import json
from collections import Counter

from dora import Node

WORKERS = 2


def main() -> None:
    """Count until all workers are done, then print a line for each."""
    counts: dict[str, Counter[str]] = {}
    done = 0
    for event in Node():
        if event["type"] == "INPUT":
            entry = json.loads(event["value"][0].as_py())
            if entry["message"] == "done":
                done += 1
            elif entry["fields"]:
                severity = entry["level"].lower()
                counts.setdefault(entry["node_id"], Counter())[severity] += 1
        if done == WORKERS:
            break
    for name, count in sorted(counts.items()):
        severities = [each for each in ("error", "warn", "info") if count[each]]
        print(f"{name}:", ", ".join(f"{count[each]} {each}" for each in severities))
    print(f"{sum(map(Counter.total, counts.values()))} lines of {len(counts)} nodes")


if __name__ == "__main__":
    main()
