"""Foundation that every other package builds on; depends on nothing else in lavis."""
