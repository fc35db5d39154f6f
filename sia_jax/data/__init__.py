"""Data sets, and files of prompts and of conversations."""
