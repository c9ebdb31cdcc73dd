"""Connections to robots over SSH: commands, files, and many robots at once."""
