"""The control API: what commands and a daemon say to each other, its client and its server."""
