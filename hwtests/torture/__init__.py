"""The torture test: nodes are killed and stopped at random while every message is checked."""
