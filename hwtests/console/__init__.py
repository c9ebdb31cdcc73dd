"""The console on a terminal: budgets beside Textual's own widgets, and pictures for the guide."""
