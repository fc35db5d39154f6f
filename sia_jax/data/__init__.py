"""Conversations and data sets."""
