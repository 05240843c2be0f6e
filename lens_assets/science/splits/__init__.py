"""Which object trains, which judges: splits by sky cell, roles inside them, and the checks that gate everything after.

``cells`` (cell to split, guard ring), ``roles`` (separate sets inside validation and test), ``assign`` (the whole, in
one table), ``balance`` (how alike the splits are), ``checks`` (what must hold) and ``shortcut`` (can metadata alone
tell the classes apart). Every object's split follows from its position and the seed alone.
"""
