"""Dataflows written in Python: `DataflowBuilder`."""

from dorad.dataflow.builder import DataflowBuilder, Node, Operator, Output

__all__ = ["DataflowBuilder", "Node", "Operator", "Output"]
