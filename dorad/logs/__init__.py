"""From the output lines of nodes to records, filters and formatted text."""
