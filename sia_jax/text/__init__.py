"""Conversations as text and ids: templates, turns, prompts, and replies as they are drawn."""
