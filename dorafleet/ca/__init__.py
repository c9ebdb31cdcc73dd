"""The fleet's certificate authority: it signs the certificates of robots, operators and itself."""
