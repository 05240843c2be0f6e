"""Detectors: a recipe and a sample become a trained network, its scores and its evaluation.

In order: ``recipes`` (named configurations) -> ``networks`` -> ``dataset`` (order, mixture, augmentation) ->
``train`` -> ``checkpoint`` -> ``score`` (the only way from a stamp to a score) -> ``evaluate``; ``tracking`` and
``figures`` beside them. What does not belong here: cutting and normalising stamps (``cutouts``), choosing rows and
roles (``splits``), and injections, which a detector never sees before it is frozen.
"""
