"""Robots without systemd: a dorad, and an agent, in folders and at addresses of their own."""
