"""Python modules that build and read messages of the types of a dataflow."""
