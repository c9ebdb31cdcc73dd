"""The agent of a robot: it connects to the coordinator and carries out its orders."""
