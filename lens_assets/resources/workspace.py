"""Where a run reads and writes, and at which size. Read from the environment when a run starts, never at import.

``LENS_ASSETS_HOME``        the folder everything is written below (default ``.lens_assets``)
``LENS_ASSETS_RELEASE``     root of the data release: a path, ``s3://`` or ``https://`` (default ``<home>/release``, the mock)
``LENS_ASSETS_STORE``       where artefacts are kept: a folder or ``s3://bucket/prefix`` (default ``<home>/store``)
``LENS_ASSETS_CACHE``       folder for local copies of remote files (default ``<home>/cache``)
``LENS_ASSETS_CACHE_GB``    bound of the copies of artefacts, in 10^9 bytes (default 50; ``0``: no bound)
``LENS_ASSETS_CATALOGUES``  folder of lens catalogues (default ``<home>/catalogues``)
``LENS_ASSETS_GALAXIES``    catalogue of real galaxies as sources, a FITS table in GalSim's layout (default: none)
``LENS_ASSETS_PSF``         folder of PSF images of the hosts' places (default: none; read by ``injections.psf_images``)
``LENS_ASSETS_PROFILE``     ``tiny``, ``demo`` or ``paper`` (default ``demo``), or the path of a profile YAML
``LENS_ASSETS_MLFLOW``      tracking URI (default SQLite below home)
``LENS_ASSETS_DAGSTER_URL`` address of the Dagster UI, for links (default ``http://127.0.0.1:3000``)

On S3 are artefacts and the data release only. Catalogues, unfinished work and finished releases are local folders: a
catalogue is watched by its time of change, a release is one directory to hand on. Credentials are boto3's own affair;
``AWS_ENDPOINT_URL_S3`` names another server.
"""

import os
from pathlib import Path

import dagster as dg

from lens_assets.science.errors import BadInput
from lens_assets.science.profile import Profile, load_profile
from lens_assets.science.storage import Store
from lens_assets.science.surveys.release import DataRelease


class Workspace(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Paths and profile of one installation; an empty field means: the environment, then the default."""

    home: str = ""
    release: str = ""
    catalogues: str = ""
    profile_name: str = ""
    mlflow: str = ""
    store_root: str = ""
    cache: str = ""
    cache_gb: str = ""

    @property
    def root(self) -> Path:
        """The folder everything is written below."""
        return Path(self.home or os.environ.get("LENS_ASSETS_HOME", ".lens_assets")).absolute()

    @property
    def release_root(self) -> str:
        """Root of the data release."""
        return self.release or os.environ.get("LENS_ASSETS_RELEASE", "") or str(self.root / "release")

    @property
    def catalogue_folder(self) -> Path:
        """Folder of lens catalogues."""
        place = self.catalogues or os.environ.get("LENS_ASSETS_CATALOGUES", "")
        if "://" in place:
            raise BadInput("lens catalogues are read from a local folder: fetch them", file=place)
        return Path(place or self.root / "catalogues")

    @property
    def galaxy_catalogue(self) -> Path | None:
        """The catalogue of real galaxies, where the user has one."""
        place = os.environ.get("LENS_ASSETS_GALAXIES", "")
        return Path(place).absolute() if place else None

    @property
    def truth_folder(self) -> Path:
        """Truth of the mock. Only the closure audit opens it."""
        return self.root / "truth"

    @property
    def votes_folder(self) -> Path:
        """Votes of blinded panels, one folder a panel: what a report counts when it is made."""
        return self.root / "votes"

    @property
    def closure_folder(self) -> Path:
        """The skies of the closure experiment and their stamps, one folder a seed: derived, and written again where missing."""
        return self.root / "closure"

    @property
    def work(self) -> Path:
        """Scratch of unfinished shards and trainings, kept across a kill."""
        return self.root / "work"

    @property
    def product_folder(self) -> Path:
        """Where finished releases go."""
        return self.root / "releases"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking URI."""
        return self.mlflow or os.environ.get("LENS_ASSETS_MLFLOW", "") or f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def dagster_url(self) -> str:
        """Where the Dagster UI is reached, for links out of MLflow."""
        return os.environ.get("LENS_ASSETS_DAGSTER_URL", "http://127.0.0.1:3000")

    @property
    def cache_folder(self) -> Path:
        """Local copies of remote files: of the data release, and of artefacts below ``store``."""
        return Path(self.cache or os.environ.get("LENS_ASSETS_CACHE", "") or self.root / "cache").absolute()

    @property
    def max_cache_bytes(self) -> int | None:
        """Bound of the local copies of artefacts; ``None``: no bound."""
        stated = self.cache_gb or os.environ.get("LENS_ASSETS_CACHE_GB", "") or "50"
        try:
            size = float(stated)
        except ValueError:
            size = -1.0
        if not 0 <= size < float("inf"):
            raise BadInput(f"LENS_ASSETS_CACHE_GB must be a number of 10^9 bytes, 0 for no bound, not {stated!r}")
        return int(size * 1e9) or None

    def store(self) -> Store:
        """The artefact store."""
        root = self.store_root or os.environ.get("LENS_ASSETS_STORE", "") or str(self.root / "store")
        return Store(
            root if "://" in root else Path(root).absolute(),
            cache=self.cache_folder / "store",
            max_cache_bytes=self.max_cache_bytes,
        )

    def data_release(self) -> DataRelease:
        """The reader of the data release."""
        return DataRelease(self.release_root, cache=self.cache_folder, settings=self.profile().surveys)

    def profile(self) -> Profile:
        """The profile that sets the sizes."""
        return load_profile(self.profile_name or os.environ.get("LENS_ASSETS_PROFILE", "") or "demo")
