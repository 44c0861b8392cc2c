"""Questions of published benchmarks, read in the formats in which they are published."""
