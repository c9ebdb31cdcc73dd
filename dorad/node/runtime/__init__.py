"""The process of an operator node: several operators, each in a thread of its own."""
