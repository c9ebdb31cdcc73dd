"""Types of ports: their names, the types there are, and whether both ends of an edge fit."""
