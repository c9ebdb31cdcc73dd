"""The daemon's handlers of the control API."""
