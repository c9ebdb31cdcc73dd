"""What a node's author imports: `Node`, its events, and helpers for tests."""
