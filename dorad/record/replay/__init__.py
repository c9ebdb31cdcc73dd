"""The replay: a node that sends recorded messages to the nodes of a dataflow."""
