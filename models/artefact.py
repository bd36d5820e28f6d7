"""The file of a fitted pipeline: skops, never a pickle, and what such a file may hold."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import skops.io
from sklearn.pipeline import Pipeline

# What our pipelines hold beyond what skops trusts by itself.
TRUSTED_TYPES = frozenset(
    {
        "models.estimators.signed_log1p",  # a pure function
        "sklearn._loss.loss.HalfTweedieLoss",  # a power and a link; skops trusts its siblings
        "sklearn.tree._tree.Tree",  # raw node indices: `_check_tree` looks through them before any use
    }
)

# scikit-learn's mark of a leaf in the arrays of children.
LEAF = -1


class ArtefactError(ValueError):
    """A file that is not a pipeline of ours; the message says why."""


def dump_pipeline(pipeline: Pipeline) -> bytes:
    """Return a fitted pipeline as the bytes of a skops file; equal pipelines may differ in them.

    Raises ArtefactError on a pipeline that `load_pipeline` would refuse, so that it fails where it was made.
    """
    data: bytes = skops.io.dumps(pipeline)
    _check_types(data)
    return data


def load_pipeline(data: bytes) -> Pipeline:
    """Return the pipeline in the bytes of a skops file.

    Raises ArtefactError where they are no such file, name a type that is not in `TRUSTED_TYPES` (nothing is
    built then), hold something else than a pipeline, or a tree whose nodes do not form one.
    """
    _check_types(data)
    try:
        pipeline = skops.io.loads(data, trusted=sorted(TRUSTED_TYPES))
    except Exception as exc:
        # skops names no exception of its own for a file that is damaged inside.
        raise ArtefactError(f"it cannot be rebuilt: {exc}") from exc
    if not isinstance(pipeline, Pipeline) or "regressor" not in pipeline.named_steps:
        raise ArtefactError(f"it holds a {type(pipeline).__name__}, not a pipeline with a regressor")
    for tree in _trees(pipeline.named_steps["regressor"]):
        _check_tree(tree)
    return pipeline


def _check_types(data: bytes) -> None:
    try:
        unknown = set(skops.io.get_untrusted_types(data=data)) - TRUSTED_TYPES
    except Exception as exc:
        raise ArtefactError(f"it is not a skops file: {exc}") from exc
    if unknown:
        raise ArtefactError(f"it holds types that are not trusted: {', '.join(sorted(unknown))}")


def _trees(regressor: Any) -> Iterator[Any]:
    """Yield the trees of a regressor: its own, or those of the members of an ensemble."""
    if hasattr(regressor, "tree_"):
        yield regressor.tree_
    for member in np.ravel(getattr(regressor, "estimators_", [])):
        yield from _trees(member)


def _check_tree(tree: Any) -> None:
    """Raise ArtefactError unless every step down a tree ends in a leaf of it.

    scikit-learn follows these indices unchecked, so a wrong one reads foreign memory or never ends. It
    numbers children after their parent, hence the rule: leaf on both sides, or both above the node itself.
    """
    nodes = np.arange(tree.node_count)
    left, right = tree.children_left, tree.children_right
    leaf = (left == LEAF) & (right == LEAF)
    below = (left > nodes) & (right > nodes) & (left < tree.node_count) & (right < tree.node_count)
    known = (tree.feature >= 0) & (tree.feature < tree.n_features)
    if tree.node_count == 0 or not (leaf | (below & known)).all():
        raise ArtefactError("a tree in it points outside itself")
