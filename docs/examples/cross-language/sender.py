"""Sends three numbers."""

import pyarrow as pa
from dora import Node

Node().send_output("numbers", pa.array([1.0, 2.0, 3.0]), {"languages": ["python"]})
