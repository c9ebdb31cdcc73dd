"""Writes pictures with their metadata into Parquet files of ten rows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from dora import Node

FOLDER = Path("out/frames")
ROWS = 10
SCHEMA = pa.schema(
    {
        "time": pa.timestamp("us", "UTC"),
        "frame": pa.int64(),
        "width": pa.int64(),
        "height": pa.int64(),
        "encoding": pa.string(),
        "pixels": pa.binary(),
    }
)


def row(event: dict) -> dict:
    """Return the row of one message."""
    metadata = event["metadata"]
    kept = {key: metadata[key] for key in ("frame", "width", "height", "encoding")}
    return {"time": metadata["timestamp"], **kept, "pixels": event["value"].to_numpy().tobytes()}


def write(rows: list[dict], number: int) -> None:
    """Write one file."""
    path = FOLDER / f"frames-{number}.parquet"
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), path)
    print(f"wrote {path.name} with {len(rows)} frames")


def main() -> None:
    """Collect rows, and write a file when there are enough, and at the end."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rows: list[dict] = []
    files = 0
    for event in Node():
        if event["type"] == "INPUT":
            rows.append(row(event))
        if len(rows) == ROWS:
            write(rows, files)
            rows, files = [], files + 1
    if rows:
        write(rows, files)


if __name__ == "__main__":
    main()
