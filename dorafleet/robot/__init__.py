"""Operations on one robot: read its facts, plan steps, run commands."""
