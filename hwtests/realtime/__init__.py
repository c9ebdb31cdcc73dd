"""How exactly a node wakes up, with and without real time, on an idle and on a busy machine."""
