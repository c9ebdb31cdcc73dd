"""The process of an operator node: several operators, each in its own thread."""
