"""Resources: where things are (workspace), how artefacts are read and written, where trainings are logged.

Shells over plain science objects: an asset body never sees a Dagster type where a plain one would do.
"""
