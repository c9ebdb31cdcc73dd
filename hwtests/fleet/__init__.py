"""The fleet manager's package on an operator's machine, and robots that it manages."""
