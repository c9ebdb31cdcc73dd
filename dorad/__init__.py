"""A dataflow system for fleets of robots: the daemon, the node API and the `dora` command."""

try:
    from dorad._build import VERSION
except ImportError:  # a tree that was never built; see packaging/version.py
    VERSION = "0.3.0.dev0"

__version__: str = VERSION

API_VERSION = "1.1.0"
"""The version of dora whose node API, files and commands these are; programs compare it."""
