"""Fixtures of the tests of real time."""

from hwtests.robots.fixtures import baked_bed, deb, robot, robots_possible

__all__ = ["baked_bed", "deb", "robot", "robots_possible"]
