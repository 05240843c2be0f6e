"""The preview and beta interfaces of Dagster that we accept, one line each. Whatever else warns is heard.

Partitioned asset checks (preview in 1.13): without ``partitions_def`` a check on a partitioned asset loads every partition, and
one failing partition holds back all. Multi-dimensional mappings (beta): a surface reads one detector and one variant's batches.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

ACCEPTED = (
    r".*partitions_def.* AssetCheckSpec",
    r".*MultiToSingleDimensionPartitionMapping",
    r".*MultiPartitionMapping",
)


@contextlib.contextmanager
def accepted() -> Iterator[None]:
    """Silence these warnings, and no others, inside the block."""
    with warnings.catch_warnings():
        for message in ACCEPTED:
            warnings.filterwarnings("ignore", message=message)
        yield
