"""Limits of memory, CPU and processes on a virtual machine, because containers cannot test them."""
