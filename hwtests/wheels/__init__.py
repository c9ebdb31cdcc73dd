"""The wheels of `make wheels`, installed as users do (make check-wheels)."""
