"""The dimension key: every einsum, shape comment and docstring of the library uses these letters.

B  rows (requests)            N  query heads                V  vocabulary
P  prompt tokens              K  key/value heads            C  candidates at a junction (the paper's k)
T  new tokens of a pass       H  width of a head            J  junction slots
S  cache columns              D  model width                R  rank of an adapter or of a low-rank head
L  tokens of a sequence       F  feed-forward width

"..." stands for any leading token axes: [B, T] for a padded block, [T] for a flat axis of token places.
"""

from typing import Any

Params = dict[str, Any]
"""A nested dict of arrays whose path, joined by dots, is the tensor's name in a Hugging Face checkpoint."""


def flatten_names(tree: Params, prefix: str = "") -> dict[str, Any]:
    """{"model": {"layers": {0: {"w": x}}}} -> {"model.layers.0.w": x}, in the tree's order."""
    flat: dict[str, Any] = {}
    for key, node in tree.items():
        name = f"{prefix}{key}"
        flat.update(flatten_names(node, f"{name}.") if isinstance(node, dict) else {name: node})
    return flat


def unflatten_names(flat: dict[str, Any]) -> Params:
    """The inverse of `flatten_names`; a part of a name that is a number becomes an int key."""
    tree: Params = {}
    for name, leaf in flat.items():
        *parents, last = [int(part) if part.isdigit() else part for part in name.split(".")]
        node: dict[Any, Any] = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = leaf
    return tree
