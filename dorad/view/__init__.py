"""Live view: what a running dataflow sends, in viewers that people know."""
