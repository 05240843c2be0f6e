"""Closing the gap: a prior set of sources fitted to one half of the held-out real lenses, and judged on the other.

Detector-independent: what is fitted are observables of the arc, never a network's features, so that the probe on those
features (``realism``) stays an independent judge. ``docs/decisions/0012`` says what can be identified and what cannot.
"""
