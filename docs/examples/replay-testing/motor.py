"""Prints the last speed that it got."""

from dora import Node


def main() -> None:
    speed, count = 0.0, 0
    for event in Node():
        if event["type"] == "INPUT":
            speed, count = event["value"][0].as_py(), count + 1
    print(f"{count} speeds, the last was {speed:.2f} m/s")


if __name__ == "__main__":
    main()
