"""Writes log lines as CSV, 30 lines a file."""

import csv
import json
from pathlib import Path

from dora import Node

FOLDER = Path("out/motor")
LINES = 30


def rotate() -> None:
    """Give the current file the name of an old one."""
    (FOLDER / "motor.csv").replace(FOLDER / "motor.1.csv")


def main() -> None:
    """Write until the motor has ended."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.csv"):
        old.unlink()
    lines = 0
    for event in Node():
        if event["type"] != "INPUT":
            continue
        entry = json.loads(event["value"][0].as_py())
        if lines and lines % LINES == 0:
            rotate()
        with (FOLDER / "motor.csv").open("a", newline="", encoding="utf-8") as file:
            row = entry["timestamp"], entry["level"], entry["message"], entry["fields"]["step"]
            csv.writer(file).writerow(row)
        lines += 1
    print(f"wrote {lines} lines to {len(list(FOLDER.glob('*.csv')))} files")


if __name__ == "__main__":
    main()
