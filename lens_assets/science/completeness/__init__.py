"""Completeness: the recovered fraction of injections on a grid of conditions, its intervals, checks, marginals and
figures.

What belongs here: everything between scored injections and a finished surface. Not the injections themselves, not the
citable directory (``release``), and not the comparison with a known truth (``audits``).
"""
