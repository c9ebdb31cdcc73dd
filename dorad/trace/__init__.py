"""Traces of messages, made of the hop records of nodes: joined, kept, shown, exported."""
