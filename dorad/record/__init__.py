"""Recordings of messages as MCAP files: writing, recovering, reading, replaying."""
