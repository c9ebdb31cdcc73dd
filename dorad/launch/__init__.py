"""Starting processes, and making sure that they end."""
