"""Notifications about alerts, by webhook and by mail."""
