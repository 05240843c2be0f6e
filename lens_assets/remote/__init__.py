"""What runs on the other side: the driver that spark-submit starts. It knows the science and the Pipes client, not Dagster."""
