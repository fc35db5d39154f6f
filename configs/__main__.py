"""`python -m configs` lists the programs of configs/, and runs one by its name."""

from sia_jax.console import main

if __name__ == "__main__":
    main(folder="configs")
