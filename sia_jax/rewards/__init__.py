"""Rewards of finished replies: reward models and functions at work, their sums, labels for data sets."""
