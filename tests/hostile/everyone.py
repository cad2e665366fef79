"""All hostile files, reader by reader; ``python -m tests.hostile.everyone`` tries them."""

from tests.hostile import arrays, containers, names

READERS = [
    containers.PAIRS,
    arrays.ARRAYS,
    names.NAMES,
]
ALL = [case for reader in READERS for case in reader.all]
