"""Counts pairs, and checks that both pictures of each were taken at one moment."""

from dora import Node

PERIOD_S = 0.05


def main() -> None:
    """Receive pairs until both cameras have ended."""
    pairs, wrong, widest = 0, 0, 0.0
    for event in Node():
        if event["type"] == "INPUT" and event["id"] == "pair":
            left, right = event["metadata"]["left"], event["metadata"]["right"]
            assert event["value"].keys() == {"left", "right"}
            pairs += 1
            apart = abs(left["timestamp"] - right["timestamp"]).total_seconds()
            widest = max(widest, apart)
            wrong += abs(left["taken"] - right["taken"]).total_seconds() > PERIOD_S / 2
        elif event["type"] == "INPUT_CLOSED":
            print(f"{event['id']} has ended")
    print(f"{pairs} pairs, {wrong} wrong, sent at most {widest * 1e3:.1f} ms apart")


if __name__ == "__main__":
    main()
