"""`python -m train` lists the programs of train/, and runs one by its name."""

from sia_jax.console import main

if __name__ == "__main__":
    main(folder="train")
