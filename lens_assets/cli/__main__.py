"""``python -m lens_assets.cli``."""

from lens_assets.cli import main

main()
