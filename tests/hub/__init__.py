"""Third-party nodes from PyPI, unmodified, under our daemon."""
