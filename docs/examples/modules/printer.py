"""Prints the results of both modules."""

from dora import Node


def main() -> None:
    """Collect until all inputs have closed."""
    lines: dict[str, list[int]] = {"double": [], "tenfold": []}
    for event in Node():
        if event["type"] == "INPUT":
            lines[event["id"]] += event["value"].to_pylist()
    for name, numbers in lines.items():
        print(f"{name}: {numbers}")


if __name__ == "__main__":
    main()
