"""The running dataflow: its processes, their mailboxes, and how all of it ends."""
