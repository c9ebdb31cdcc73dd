"""Counts the parts, and prints when the force of the grip changes."""

from dora import Node


def main() -> None:
    """Look at each part."""
    last, missing, before = None, 0, None
    for event in Node():
        if event["type"] != "INPUT":
            continue
        number = event["metadata"]["number"]
        missing += 0 if last is None else number - last - 1
        last = number
        force_per_kg = round(event["value"][0].as_py() / event["metadata"]["weight_kg"], 2)
        if force_per_kg != before:
            print(f"part {number}: {force_per_kg} N per kg, {missing} parts are missing")
            before = force_per_kg


if __name__ == "__main__":
    main()
