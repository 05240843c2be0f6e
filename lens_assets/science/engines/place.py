"""Where a kernel reads and writes, as a value that travels: plain JSON, no secrets, no open files.

The same value is used in this process, in a process pool, in a Spark task and on a cluster; what differs between them
is whether the roots in it are folders or object storage.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lens_assets.science.profile import Profile
from lens_assets.science.storage import Store
from lens_assets.science.surveys.release import DataRelease


class Place(BaseModel):
    """Roots and profile of one installation (frozen).

    ``release`` is the root of the data release, ``store`` that of the artefacts (a folder or ``s3://bucket/prefix``),
    ``cache`` a folder of the machine the kernel runs on, for local copies of at most ``max_cache_bytes`` of artefacts,
    ``profile`` the content of the profile (not its name: a cluster does not have the file).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    release: str
    store: str
    cache: str
    max_cache_bytes: int | None = None
    profile: dict[str, Any]

    @classmethod
    def of(cls, release: str, store: str, cache: str | Path, profile: Profile) -> Place:
        """The place of a validated profile."""
        return cls(release=release, store=store, cache=str(cache), profile=profile.model_dump(mode="json"))

    def open(self) -> Opened:
        """Store, data release and profile of this place; once a process."""
        return _opened(self.model_dump_json())


@dataclass(frozen=True)
class Opened:
    """A place whose store, release and profile can be used."""

    store: Store
    release: DataRelease
    profile: Profile


@lru_cache(maxsize=8)
def _opened(text: str) -> Opened:
    place = Place.model_validate_json(text)
    profile, cache = Profile.model_validate(place.profile), Path(place.cache)
    release = DataRelease(place.release, cache=cache, settings=profile.surveys)
    return Opened(Store(place.store, cache=cache / "store", max_cache_bytes=place.max_cache_bytes), release, profile)
