"""Links: the edges of a dataflow between machines, carried over Zenoh by a separate process."""
