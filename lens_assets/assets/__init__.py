"""The assets: load, one science call, one artefact with metadata. One module a room, in the order data flows.

surveys -> lenses -> negatives -> splits -> cutouts -> detectors -> injections -> realism -> completeness -> audits -> release.
What an asset computes is in ``lens_assets.science``; here is only what it depends on, how it is partitioned, and what it shows.
"""
