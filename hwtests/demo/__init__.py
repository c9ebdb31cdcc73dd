"""A fleet from nothing to a healed cut, in less than a minute: `make demo-fleet`."""
