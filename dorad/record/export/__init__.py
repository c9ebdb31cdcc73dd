"""Recordings in the formats of other tools; each is imported when it is used."""
