"""The fleet manager: it runs on the operator's machine and manages many robots that run dorad."""

import warnings

# As in dorad.release, before any module here imports asyncssh.
warnings.filterwarnings("ignore", "DSA is deprecated", module=r"asyncssh\.")
