"""Rollouts: the steps that switch robots to a release. Functions of data; no robot, no store."""
