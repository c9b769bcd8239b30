"""The measures of the benchmarks and self-checks."""
