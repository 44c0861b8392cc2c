"""What one run computes: units of work, their rows, and the files and figures made of the rows."""
