"""The partition axes of the platform and how they map onto each other.

Every mapping is stated where it is used: an inferred mapping between two partitioned assets is identity, which between
different axes selects nothing and says nothing. All axes but the Einstein radius are dynamic: their keys come from files
(sweeps, lens catalogues, recipe and variant YAML), through the sensors in ``lens_assets.automation``.
"""

from __future__ import annotations

import dagster as dg

from lens_assets.preview import accepted
from lens_assets.science.completeness.settings import Settings

TILE = dg.DynamicPartitionsDefinition(name="tile")
"""One key a sweep file, for instance ``000m005``."""
CHANNEL = dg.DynamicPartitionsDefinition(name="channel")
"""One key a lens catalogue, for instance ``mock-imaging``."""
NETWORK = dg.DynamicPartitionsDefinition(name="network")
"""One key a training recipe and seed, for instance ``bottleneck-s1``."""
DETECTOR = dg.DynamicPartitionsDefinition(name="detector")
"""One key a detector: a network by itself (``bottleneck-s1``) or an ensemble of networks (``mean_compact-e1``)."""
VARIANT = dg.DynamicPartitionsDefinition(name="variant")
"""One key an injection variant, for instance ``sersic-population``."""
THETA_E_KEYS = dg.StaticPartitionsDefinition([f"{value:.2f}" for value in Settings().theta_e])
"""The Einstein radii of the grid in arcsec, two decimals."""
BATCH = dg.MultiPartitionsDefinition({"variant": VARIANT, "theta_e": THETA_E_KEYS})
SURFACE = dg.MultiPartitionsDefinition({"detector": DETECTOR, "variant": VARIANT})

ALL = dg.AllPartitionMapping()
SAME = dg.IdentityPartitionMapping()
with accepted():
    BATCHES_OF_VARIANT = dg.MultiPartitionMapping(
        {"variant": dg.DimensionPartitionMapping(dimension_name="variant", partition_mapping=SAME)}
    )
    """A surface (detector x variant) reads every Einstein radius of its variant."""
    SURFACES_OF_DETECTOR = dg.MultiPartitionMapping(
        {"detector": dg.DimensionPartitionMapping(dimension_name="detector", partition_mapping=SAME)}
    )
    """What compares the surfaces of one detector reads those of all its variants."""
    DETECTOR_OF_SURFACE = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name="detector")
    """A surface reads its own detector."""
    VARIANT_OF_BATCH = dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name="variant")
    """A batch (variant x theta_E) reads its own variant."""


def surface_key(detector: str, variant: str) -> dg.MultiPartitionKey:
    """The partition key of one detector and one variant."""
    return dg.MultiPartitionKey({"detector": detector, "variant": variant})


def batch_key(variant: str, theta_e: float) -> dg.MultiPartitionKey:
    """The partition key of one variant and one Einstein radius (arcsec)."""
    return dg.MultiPartitionKey({"variant": variant, "theta_e": f"{theta_e:.2f}"})


def folder_key(partition: str) -> str:
    """A partition key as the name of its folder: Dagster joins two dimensions by ``|``, we by ``+``."""
    return partition.replace("|", "+")
