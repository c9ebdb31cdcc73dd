"""What recording costs beside others, and whether other programs read our files."""
