"""Types of ports: names, definitions, and checks that both ends of an edge match."""
