"""How processes start and surely end."""
