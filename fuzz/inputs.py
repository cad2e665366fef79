"""Fuzz inputs (.npz, .npy): the samples for a model with one input, and for one with two."""

import contextlib
import shutil

import numpy as np

from fuzz.target import QdebugError, fuzz, mutate_member
from qdebug.sources.inputs import InputSpec, array_names, read_samples

_FLOAT, _BYTES = np.dtype(np.float32), np.dtype(np.uint8)
_IMAGE = InputSpec("image", (None, 8, 8, 1), _FLOAT)
_MODELS = ([_IMAGE], [InputSpec("a", (1, 4), _FLOAT), InputSpec("b", (1, 2), _BYTES)])


def read(path: str) -> None:
    """As a live pair reads its samples: by names and shapes, then run by run."""
    with contextlib.suppress(QdebugError):
        array_names(path)
    alone = path.replace(".npz", ".npy")
    shutil.copyfile(path, alone)
    for name in (path, alone):
        for specs in _MODELS:
            with contextlib.suppress(QdebugError):
                for _ in read_samples(name, specs, 4):
                    pass


if __name__ == "__main__":
    fuzz(read, ".npz", mutate_member)
