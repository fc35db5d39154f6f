"""Trajectory reward models at work: labels for data sets."""
