"""Analysis by synthesis: one module a stage, in pipeline order."""
