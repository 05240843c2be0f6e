"""Non-lens galaxies: who may be one, which of them are hard, and a stratified sample of them.

Order of the work: ``selection`` screens (the same screen for both classes), ``exclusion`` keeps every known lens away,
``categories`` marks catalogue proxies of confusers, ``pool`` is the one-tile kernel that does the three, ``sample``
draws from the union of tiles, ``coverage`` compares what was drawn with where it came from. No splits here (see
``splits``).
"""
