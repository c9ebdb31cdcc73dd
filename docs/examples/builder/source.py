"""Sends the number 1."""

import pyarrow as pa
from dora import Node

Node().send_output("number", pa.array([1]))
