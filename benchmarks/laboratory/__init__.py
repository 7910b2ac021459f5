"""What the benchmarks share: contestants, what they work on, what is said of them, the pages."""
