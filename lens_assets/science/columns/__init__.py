"""The column registry: every column of every table, defined once (name, dtype, unit, range, meaning, source).

Writers, checks, the documentation page and the column schema in the Dagster UI are all derived from it. One module a room;
each module has ``COLUMNS`` (a tuple of new columns) and ``TABLES`` (a tuple of tables built from these and earlier ones).
"""
