"""The console: the fleet on a terminal. Model, view and link do not use Textual."""
