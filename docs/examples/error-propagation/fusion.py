"""Fuses two sensors, and continues with one when the other has failed."""

from collections import Counter

from dora import Node


def main() -> None:
    """Print which sensor has failed, and why."""
    seen: Counter[str] = Counter()
    missing: set[str] = set()
    without = 0
    for event in Node():
        if event["type"] == "INPUT":
            seen[event["id"]] += 1
            without += bool(missing)
        elif event["type"] == "NODE_FAILED":
            failed = event["value"]
            missing.update(failed["affected_input_ids"])
            print(f"{failed['source_node_id']} failed: {failed['error'].splitlines()[0]}")
            print(f"continuing without {', '.join(sorted(missing))}")
    print(f"{seen['points']} scans; {'continued' if without else 'stopped'} after the failure")


if __name__ == "__main__":
    main()
