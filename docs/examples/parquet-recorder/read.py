"""Reads what the recorder has written."""

from pathlib import Path

import pyarrow.parquet as pq

files = sorted(Path("out/frames").glob("*.parquet"))
rows = [row for file in files for row in pq.read_table(file).to_pylist()]
assert all(set(row["pixels"]) == {row["frame"]} for row in rows)
first, last = rows[0], rows[-1]
size = f"{first['width']}x{first['height']}"
print(f"{len(rows)} frames of {size} in {len(files)} files,", end=" ")
print(f"numbered {first['frame']} to {last['frame']}")
