"""Tests of the console: pure parts, screens against a fake server, and a real terminal."""
