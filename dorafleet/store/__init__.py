"""The coordinator's persistent state: a small versioned key-value store with two engines."""
