"""What the benchmarks of speed share: contestants, what they work on, and what is said of them."""
