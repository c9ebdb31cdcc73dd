"""The control API between commands and a daemon: its messages, its client and its server."""
