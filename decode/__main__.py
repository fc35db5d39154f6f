"""`python -m decode` lists the programs of decode/, and runs one by its name."""

from sia_jax.console import main

if __name__ == "__main__":
    main(folder="decode")
