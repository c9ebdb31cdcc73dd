"""The fleet manager: many robots that run dorad, from the operator's machine."""
