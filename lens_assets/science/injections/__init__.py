"""Injections: arcs of known truth on real non-lens hosts, the measuring instrument of the platform.

``hosts`` chooses host galaxies per grid cell, ``batch`` plans injections and measures their truth, ``render`` makes
arcs (``kernel`` is its compiled heart, ``reference`` the independent codes), ``noise`` adds photon noise with a
measured gain. Injections never enter training, model selection or a threshold.
"""
