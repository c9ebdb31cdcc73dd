"""What the coordinator must not forget: a small versioned key-value store with two engines."""
