"""Where and how a policy is steered: entropy, gates, tilts, processors, filters, Gumbels."""
