"""Print which dora this node got, and which version of the wheel is installed beside it."""

from importlib.metadata import version

import dora

dora.Node()
print("DORA", dora.__file__)
print("WHEEL", version("dora-rs"))
