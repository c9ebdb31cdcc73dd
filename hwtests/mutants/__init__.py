"""The mutation test: pure cores are changed in one place each, and their tests must notice."""
