"""The supervisor: it starts, watches, stops and restarts the nodes of one running dataflow."""
