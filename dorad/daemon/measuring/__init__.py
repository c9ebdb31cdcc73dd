"""What nodes, edges and the machine use, seen from outside."""
