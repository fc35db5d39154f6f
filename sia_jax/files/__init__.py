"""Rules about files that all readers and writers share. Nothing here imports the rest of the package."""
