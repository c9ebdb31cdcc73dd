"""Running real dataflows in tests."""
