"""From data to lines of text with named styles. Pure functions, without a terminal."""
