"""A dataflow as data: parse, expand, check, draw. Pure: no I/O but reading files."""
