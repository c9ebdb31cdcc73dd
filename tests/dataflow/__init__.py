"""The dataflow as data."""
