"""Services, goals and streams: exchanges over several messages, with helpers that wait."""
