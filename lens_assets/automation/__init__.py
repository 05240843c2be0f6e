"""Automation: what arrives (sensors, as thin shells over pure differences) and what is then renewed (conditions)."""
