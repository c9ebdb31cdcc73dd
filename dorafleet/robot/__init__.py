"""What is asked of one robot and done to it: facts in, commands out."""
