"""Counts and adds up numbers."""

from dora import Node


def main() -> None:
    """Print how many messages came, and their sum."""
    count = total = 0
    for event in Node():
        if event["type"] == "INPUT":
            count += 1
            total += event["value"][0].as_py()
    print(f"received {count}, sum {total}")


if __name__ == "__main__":
    main()
