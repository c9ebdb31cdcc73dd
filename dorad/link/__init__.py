"""Links: the edges of a dataflow between machines, carried over Zenoh by a process of their own."""
