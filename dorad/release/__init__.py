"""Signed releases of dataflows on a robot: check them, keep them, make trees of files from them.

`Trees` is the entrance: `lacking`, `stage`, `tree`, `collect`. `changes.changed_nodes` compares two
manifests. Every function that refuses raises `ReleaseError`, whose `code` says why.
"""

import warnings

# asyncssh imports DSA, which cryptography 51 deprecates: a warning in the output of each command.
warnings.filterwarnings("ignore", "DSA is deprecated", module=r"asyncssh\.")
