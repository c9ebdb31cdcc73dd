"""Rollouts: how a release gets to robots, step by step. Functions of data; no robot, no store."""
