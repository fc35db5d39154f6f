"""Runs worth repeating, a file each: its docstring says the command, what it needs and what it costs."""
