"""Tests of the package on robots that run systemd."""
