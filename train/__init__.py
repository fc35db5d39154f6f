"""Programs that prepare data and train models: `python -m train.<name> --help`."""
