"""A dataflow system for fleets of robots: the daemon, the node API and the `dora` command."""

__version__ = "0.1.0"
