"""Non-lens galaxies: who may be one, which of them are hard, and a stratified sample of them.

Order of the work: ``selection`` screens (the same screen for both classes), ``exclusion`` keeps every known lens away,
``categories`` marks catalogue proxies of confusers, ``pool`` is the one-tile kernel that does the three (``rows``: from a table;
``sweeping``: while a sweep file goes by; ``border``: what adjacent tiles must know), ``sample`` draws, ``union`` draws
from the tiles of a survey without holding them, ``coverage`` compares what was drawn with where it came from. No splits here (see
``splits``).
"""
