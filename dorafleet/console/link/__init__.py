"""The connection to the server: what it says, how old that is, and streams for screens."""
