"""A fleet of 1,000 simulated robots against a real coordinator: `make bench-fleet`."""
