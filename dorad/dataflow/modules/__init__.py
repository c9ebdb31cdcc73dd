"""Modules: files with nodes that take the place of the dataflow's node that names them."""
