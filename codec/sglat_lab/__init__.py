"""The laboratory: measuring, benchmarks, reports and training; the product never imports it."""
