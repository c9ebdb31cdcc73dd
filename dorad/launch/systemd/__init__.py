"""systemd as the parent of nodes: a transient unit for each, descriptors in its FD store."""
