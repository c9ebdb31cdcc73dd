"""Real time: how processes are scheduled, what this machine allows, what mends it."""
