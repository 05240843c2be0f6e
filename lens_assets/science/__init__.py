"""The science: pure functions on arrays, Arrow and Polars tables. Nothing below this package imports Dagster.

The sub-packages read as the pipeline, in the order data flows:
surveys -> lenses -> negatives -> splits -> cutouts -> detectors -> injections -> realism -> completeness -> audits -> release.
``mock`` writes a practice release in the survey's own layout. The modules at this level serve all rooms.
"""
