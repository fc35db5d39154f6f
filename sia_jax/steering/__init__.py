"""Where and how the policy is steered: entropy, gates, tilts, processors, filters, the race. Pure functions."""
