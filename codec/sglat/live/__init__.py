"""Live calls: one person's motion over UDP against an identity that the other end holds."""
