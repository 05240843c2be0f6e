"""lens_assets: the selection function of a strong-lens search, measured and released with its lineage.

Kept import-light on purpose: ``lens_assets.lookup`` must load with numpy and pyarrow alone.
"""

__version__ = "0.1.0"
