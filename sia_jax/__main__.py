"""`python -m sia_jax` is `sia`."""

from sia_jax.console import main

if __name__ == "__main__":
    main()
