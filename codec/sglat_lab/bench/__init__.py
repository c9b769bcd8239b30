"""One harness: probes, workers, cache and time plan."""
