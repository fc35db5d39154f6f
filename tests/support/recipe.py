"""How torch and we are trained to be compared: numbers alone, which need neither of the two."""

RECIPE = {"learning_rate": 1e-3, "weight_decay": 1e-2, "clip_norm": 1.0}
"""Ten times the paper's rate, so that twenty steps show what weight decay and the moments do."""
