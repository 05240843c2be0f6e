"""Lenses: published lists as channels on one schema, united into a registry by position, and matched to the survey."""
