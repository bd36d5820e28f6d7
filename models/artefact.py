"""The file of a fitted pipeline: skops, never a pickle, and what such a file may hold."""

import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import numpy as np
import skops.io
from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from sklearn.pipeline import Pipeline
from sklearn.tree._tree import Tree

# What our pipelines hold beyond what skops trusts by itself.
TRUSTED_TYPES = frozenset(
    {
        "models.boosting.RatioBoosting",  # ours hold numbers, lists of them and scikit-learn's own estimators
        "models.buying.BuyingModel",
        "models.ensemble.LevelledMean",
        "models.transforms.CustomerLogs",
        "sklearn._loss.loss.HalfTweedieLoss",  # a power and a link; skops trusts its siblings
        # Raw node indices: `_check_trees` looks through them before any use.
        "sklearn.tree._tree.Tree",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
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
    for tree, features in _trees(pipeline, 0, set()):
        _check_tree(tree, features)
    return pipeline


def _check_types(data: bytes) -> None:
    try:
        _check_size(data)
        unknown = set(skops.io.get_untrusted_types(data=data)) - TRUSTED_TYPES
    except ArtefactError:
        raise
    except Exception as exc:
        raise ArtefactError(f"it is not a skops file: {exc}") from exc
    if unknown:
        raise ArtefactError(f"it holds types that are not trusted: {', '.join(sorted(unknown))}")


def _check_size(data: bytes) -> None:
    """Raise ArtefactError where a file would fill more memory than it has bytes, but for a small factor.

    Ours are archives that compress nothing, in which each array has a file and an owner. So a model may be
    as large as it is, and 10 MB cannot become gigabytes: neither by compression, nor by arrays that share
    bytes or are read again and again, nor by the compressed archive that skops keeps a sparse matrix in.
    """
    with ZipFile(BytesIO(data)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > len(data):
            raise ArtefactError(f"it unpacks to {unpacked:,} bytes, and has {len(data):,}")
        waiting = [json.loads(archive.read("schema.json"))]
    owners: dict[str, object] = {}
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if node.get("__loader__") == "SparseMatrixNode":
                raise ArtefactError("it holds a sparse matrix, which would be unpacked unseen")
            # skops reads the file of an object without a name each time that it meets one.
            file, owner = node.get("file"), node.get("__id__") or object()
            if isinstance(file, str) and owners.setdefault(file, owner) != owner:
                raise ArtefactError(f"its file {file} is read more than once")
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _trees(thing: Any, features: int, seen: set[int]) -> Iterator[tuple[Any, int]]:
    """Yield every tree that can be reached from `thing`, with the columns that its owner is given.

    An estimator refuses input of another width than its `n_features_in_`, so that bounds what its trees read.
    """
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tree | TreePredictor):
        yield thing, features
        return
    features = getattr(thing, "n_features_in_", features)
    if isinstance(thing, np.ndarray):
        inside: Any = thing.ravel().tolist() if thing.dtype.hasobject else ()
    elif isinstance(thing, dict):
        inside = thing.values()
    elif isinstance(thing, list | tuple | set | frozenset):
        inside = thing
    else:
        inside = getattr(thing, "__dict__", {}).values()
    for part in inside:
        yield from _trees(part, features, seen)


def _check_tree(tree: Any, features: int) -> None:
    """Raise ArtefactError unless every step down a tree ends in a leaf of it.

    scikit-learn follows these indices unchecked, so a wrong one reads foreign memory or never ends. It
    numbers children after their parent, hence the rule: a leaf, or both children above the node itself and a
    column that is there.
    """
    if isinstance(tree, TreePredictor):
        table = tree.nodes
        if table.dtype != PREDICTOR_RECORD_DTYPE or table["is_categorical"].any():
            raise ArtefactError("a tree in it is not one of numbers")
        left, right, feature = (table[name].astype(np.int64) for name in ("left", "right", "feature_idx"))
        leaf = table["is_leaf"] != 0
    else:
        left, right, feature = tree.children_left, tree.children_right, tree.feature
        leaf = (left == LEAF) & (right == LEAF)
        features = min(features, tree.n_features)
    nodes = np.arange(len(left))
    below = (left > nodes) & (right > nodes) & (left < len(nodes)) & (right < len(nodes))
    known = (feature >= 0) & (feature < features)
    if len(nodes) == 0 or not (leaf | (below & known)).all():
        raise ArtefactError("a tree in it points outside itself")
