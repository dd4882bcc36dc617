"""One file a question; `python -m benchmarks` runs them and prints ratios, medians of runs in turn."""
