"""Modules: files of nodes that are read, checked, and put into the dataflow that names them."""
