"""Surveys: reading a data release (sweeps, brick coadds, brick grid) and the observing conditions it was taken
under."""
