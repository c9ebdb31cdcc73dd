"""The broker: mailboxes, edges and connections through which nodes exchange data."""
