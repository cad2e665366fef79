"""All hostile files, reader by reader; ``python -m tests.hostile.everyone`` tries them."""

from tests.hostile import arrays, containers, names, samples, texts

READERS = [
    containers.PAIRS,
    arrays.ARRAYS,
    names.NAMES,
    texts.REPORTS,
    texts.TABLES,
    texts.CONFIGS,
    samples.SAMPLES,
]
ALL = [case for reader in READERS for case in reader.all]
