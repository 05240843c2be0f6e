"""Do injected lenses look like real ones? Measures, gates, the go/no-go report, adversarial probes and the blind panel.

Everything here takes plain arrays and frames (``stamps.StampSet``); who made them, and what follows from the verdict,
is decided elsewhere.
"""
