"""The process holder: a small process that is the parent of all nodes.

`process` is its program, with `children` and `execute`; `client` is the other end, with `link`,
`starting` and `handle`; `wire` has the packets between them.
"""
