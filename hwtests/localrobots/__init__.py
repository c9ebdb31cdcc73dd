"""Robots without systemd: a dorad, and an agent, in separate folders and at separate addresses."""
