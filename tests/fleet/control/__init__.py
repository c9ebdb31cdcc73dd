"""Tests of what the coordinator does about robots and dataflows, over real WebSockets."""
