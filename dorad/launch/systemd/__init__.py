"""systemd as the host of nodes: a transient unit for each, descriptors in its FD store."""
