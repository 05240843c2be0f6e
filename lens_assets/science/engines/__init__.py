"""Engines: who makes the tiles. One kernel a tile asset, and four ways to run it over many tiles with the same bytes.

``kernels`` holds what is made of a tile; ``local`` runs kernels in this process or in several, ``spark`` in the tasks of a
Spark session (also on EMR, through ``lens_assets.remote.spark_main``). An engine is handed *keys* of tiles, never rows: each
kernel reads its inputs from the store or the data release and writes its artefact into the store, wherever it runs.

What does not belong here: Dagster, and what EMR is (``lens_assets.resources``). pyspark is imported inside functions only.
"""
