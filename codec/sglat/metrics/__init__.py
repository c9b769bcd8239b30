"""What a codec costs and how good it looks: metrics, rates, anchor codecs and their report."""
