"""Parts of the software that need more packages than sampling does, and what is said without them."""

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ImportError):
    """A package that only one of the extras installs is not there."""


@contextmanager
def installed_with(extra: str) -> Iterator[None]:
    """Around imports of packages that come with an extra, such as `pip install 'sia_jax[train]'`.

    Raises:
      MissingExtraError: a package inside is not installed; names it and the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the package {error.name} is not installed; it comes with: pip install 'sia_jax[{extra}]' "
            f"(in a checkout: make env, or pip install -e '.[{extra}]')",
            name=error.name,
        ) from error
