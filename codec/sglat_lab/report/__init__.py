"""Tables, plots and pages from recorded figures."""
