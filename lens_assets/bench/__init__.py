"""Benchmarks: the platform against a named reference doing the same work, in turn in one run, one line of numbers each.

Only ratios inside one run mean anything on a shared machine. References do what users of the field do today and get the
same allocator settings, warm caches and, where they can use them, threads; what a line leaves out of their time is said in
its module. ``lens_assets.cli.bench`` runs them; nothing here is used by the platform.
"""
