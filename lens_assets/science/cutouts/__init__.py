"""Cutouts: stamps of the coadds, their quality, what a shortcut could learn from them, and the one normalisation.

Stamps are cut from whole bricks (one decompression serves all stamps of a brick), one shard per tile, memory-mapped.
What does not belong here: which objects to cut (``splits``), reading bricks (``surveys``), augmentation
(``detectors``).
"""
