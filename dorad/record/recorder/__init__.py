"""The recorder: a node that writes what it receives into a recording."""
