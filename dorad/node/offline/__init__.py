"""A node without a dataflow: inputs from a file, from a terminal or from a test's own list."""
