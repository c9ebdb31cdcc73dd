"""MCAP files: their records, writing, reading, repairing."""
