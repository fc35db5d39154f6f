"""Conversations as text: chat templates, the markup of turns, which form a prompt has, where texts begin."""
