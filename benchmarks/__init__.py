"""What is measured. Nothing imports it; run a benchmark from the checkout: python -m benchmarks.NAME."""
