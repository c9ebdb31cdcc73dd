"""The process that takes part in a dataflow for somebody at the control API; needs pyarrow."""
