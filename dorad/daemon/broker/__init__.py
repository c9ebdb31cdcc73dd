"""Mailboxes, edges and connections of a running dataflow: what its nodes need to exchange data."""
