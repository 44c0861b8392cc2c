"""Other people's programs that run our models; imported by them, and by nothing in `lavis`."""
