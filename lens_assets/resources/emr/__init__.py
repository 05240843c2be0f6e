"""EMR: the Spark engine on a cluster (EC2) or on EMR Serverless, driven and reported through Dagster Pipes.

``settings`` says what is used and what it may cost; ``clusters`` and ``serverless`` submit, watch and cancel; ``client`` is
the Pipes session around them and decides what counts as success. The driver on the other side is
``lens_assets.remote.spark_main``.
"""
