"""Where the nodes of dataflows run in a fleet."""
