"""Writing log lines of nodes to systemd's journal, and reading them back."""
