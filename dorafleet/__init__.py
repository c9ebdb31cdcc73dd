"""The fleet manager: it runs on the operator's machine and manages many robots that run dorad."""
