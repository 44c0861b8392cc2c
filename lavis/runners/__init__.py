"""The loop that trains and evaluates, on any number of processes."""
