"""Programs that generate text and measure it: `python -m decode.<name> --help`."""
