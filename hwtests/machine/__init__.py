"""What containers cannot show: limits of memory, CPU and processes, on a kernel of their own."""
