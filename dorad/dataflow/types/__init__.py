"""What the data of ports is: type URNs, the types there are, and whether both ends of an edge fit."""
