"""What the benchmarks of `scripts/` time, a module for each of their commands."""
