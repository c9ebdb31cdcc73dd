"""Started by hand: attaches to the running dataflow, prints five counts, and ends."""

from dora import Node

COUNTS = 5


def main() -> None:
    """Print the counts; the dataflow continues without this process."""
    node = Node("viewer")
    seen = 0
    for event in node:
        if event["type"] != "INPUT":
            continue
        print(f"count is {event['value'][0].as_py()}", flush=True)
        seen += 1
        if seen == COUNTS:
            break


if __name__ == "__main__":
    main()
