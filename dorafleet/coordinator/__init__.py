"""The coordinator: it keeps the desired state of the fleet, and brings robots to it."""
