"""The daemon: it runs dataflows, with their processes, mailboxes and state."""
