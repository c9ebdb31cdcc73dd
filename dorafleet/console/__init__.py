"""The console: the fleet on a terminal. Model, view and link know nothing of Textual."""
