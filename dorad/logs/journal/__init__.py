"""Lines of nodes in systemd's journal: written, and read again."""
