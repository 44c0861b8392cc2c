"""Published benchmarks, converted into records of images with candidate texts."""
