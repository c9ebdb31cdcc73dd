"""Real time: scheduling of processes, and checks of what this machine allows."""
