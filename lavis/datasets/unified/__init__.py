"""Published benchmarks, converted into records of pictures with candidate texts."""
