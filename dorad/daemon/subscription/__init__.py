"""Subscribe to outputs and publish on them for clients of the control API."""
