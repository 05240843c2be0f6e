"""Tiles that meet: the pools of the engines are those of the undivided sky, and a late tile renews those it touches, no others."""

import dagster as dg
import numpy as np
import polars as pl
import pytest

from lens_assets.assets import lenses, negatives, surveys
from lens_assets.automation.sensors import synchronise, tick
from lens_assets.checks.negatives import borders_read
from lens_assets.resources.artefacts import ArtefactIOManager
from lens_assets.resources.workspace import Workspace
from lens_assets.science.columns.lenses import LENS_REGISTRY
from lens_assets.science.engines.beside import borders_beside, outdated, surroundings
from lens_assets.science.engines.kernels import KERNELS, make_tile, run_tile
from lens_assets.science.engines.local import in_process, in_processes
from lens_assets.science.engines.place import Place
from lens_assets.science.engines.report import complete
from lens_assets.science.errors import BadInput
from lens_assets.science.mock.sweepfile import SWEEP_DTYPE, write_sweep
from lens_assets.science.negatives.pool import build_pool
from lens_assets.science.negatives.selection import load_selection
from lens_assets.science.profile import load_profile
from lens_assets.science.storage import Store
from lens_assets.science.surveys.layout import Tile, brick_at, tile_at

pytestmark = [
    pytest.mark.filterwarnings("ignore:Parameter `include_sources` of function `AssetSelection.all`"),
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated:DeprecationWarning"),
]
SURROUNDINGS_KEY = dg.AssetKey("surroundings")
CORNERS = {"four tiles": (155.0, 5.0), "RA 0": (0.0, 5.0), "the equator": (10.0, 0.0), "near the pole": (90.0, -85.0)}


def crowd(corner, n=160, seed=3):
    """Sweep rows of galaxies and stars within an arcminute of where four tiles meet, by tile key."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, SWEEP_DTYPE)
    rows["DEC"] = corner[1] + rng.uniform(-60, 60, n) / 3600
    rows["RA"] = (corner[0] + rng.uniform(-60, 60, n) / 3600 / np.cos(np.radians(corner[1]))) % 360
    bricks = [brick_at(a, d) for a, d in zip(rows["RA"], rows["DEC"], strict=True)]
    rows["RELEASE"], rows["OBJID"] = 10000, np.arange(n)
    rows["BRICKID"], rows["BRICKNAME"] = [b.brickid for b in bricks], [b.name for b in bricks]
    star = rng.random(n) < 0.15
    rows["TYPE"], rows["REF_CAT"] = np.where(star, b"PSF", b"REX"), np.where(star, rng.choice([b"T2", b"GE"], n), b"")
    for band in "GRZ":
        rows[f"FLUX_{band}"], rows[f"NOBS_{band}"] = 12.0, 5
        rows[f"PSFDEPTH_{band}"], rows[f"GALDEPTH_{band}"], rows[f"PSFSIZE_{band}"] = 500, 300, 1.3
        rows[f"MW_TRANSMISSION_{band}"] = 0.9
    rows["FLUX_R"] = rng.choice([0.5, 3.0, 15.0, 200.0], n)
    rows["SHAPE_R"] = np.where(star, 0, 0.5)
    keys = np.array([tile_at(a, d).key for a, d in zip(rows["RA"], rows["DEC"], strict=True)])
    return {key: rows[keys == key] for key in sorted({*keys.tolist()})}


def lens_across(tiles):
    """A registry of one lens, and the OBJID of a galaxy of another tile that lies within 11 arcsec of it."""
    every = np.concatenate(list(tiles.values()))
    tile = np.repeat(np.arange(len(tiles)), [len(rows) for rows in tiles.values()])
    east = ((every["RA"][:, None] - every["RA"] + 180) % 360 - 180) * np.cos(np.radians(every["DEC"][:, None]))
    apart = np.hypot(east, every["DEC"][:, None] - every["DEC"]) * 3600
    apart[(tile[:, None] == tile) | (every["TYPE"] != b"REX")[:, None]] = np.inf
    near, lens = np.unravel_index(apart.argmin(), apart.shape)
    assert apart.min() < 10.5
    given = {
        "system_id": "S1", "ra": float(every["RA"][lens]), "dec": float(every["DEC"][lens]), "z_lens": 0.5, "z_source": None,
        "theta_e": 1.2, "kind": "galaxy", "label": "visual_A", "tier": "A", "weight": 0.9, "n_members": 1,
        "extent_arcsec": 0.0, "trains": True, "independent": False, "conflict_z": False, "conflict_theta_e": False,
        "conflict_grade": False, "conflict_label": False, "conflict_kind": False, "channels": ["mock"],
        "lens_ids": ["mock:1"],
    }  # fmt: skip
    return LENS_REGISTRY.conform(pl.DataFrame([given])), int(every["OBJID"][near])


@pytest.fixture
def survey(request, tmp_path):
    """(place, tiles, registry, the galaxy that a lens beyond the edge excludes) over one kind of edge: RA 0 unless asked."""
    tiles = crowd(CORNERS[getattr(request, "param", "RA 0")])
    registry, excluded = lens_across(tiles)
    for key, rows in tiles.items():
        write(tmp_path / "release", key, rows)
    place = Place.of(str(tmp_path / "release"), str(tmp_path / "store"), tmp_path / "cache", load_profile("paper"))
    with Store(place.store).draft("lens_registry", made_from={"test": 1}) as draft:
        draft.table(registry)
    return place, tiles, registry, excluded


def write(root, key, rows):
    tile = tile_at(float(rows["RA"][0]), float(rows["DEC"][0]))
    assert tile.key == key
    (root / tile.path).parent.mkdir(parents=True, exist_ok=True)
    write_sweep(root / tile.path, rows, {})


def whole(place, keys, registry):
    """The pool of all tiles as one."""
    sky = pl.concat([Store(place.store).get("sweeps", key).read() for key in keys])
    settings = load_profile("paper").negatives
    return build_pool(sky, registry, load_selection(settings.selection), settings)[0].sort("galaxy_id")


def pools(place, keys):
    return pl.concat([Store(place.store).get("negative_pool", key).read() for key in keys]).sort("galaxy_id")


@pytest.mark.parametrize("survey", CORNERS, indirect=True)
def test_pools_of_tiles_that_meet_are_the_pool_of_one_big_tile(survey):
    place, tiles, registry, excluded = survey
    keys = list(tiles)
    assert len(keys) == 4
    for asset in ("sweeps", "sweep_border", "negative_pool"):
        assert all(r.ok for r in in_process(asset, keys[::-1], place))
    found, expected = pools(place, keys), whole(place, keys, registry)
    assert found.equals(expected)
    assert excluded not in found["objid"].to_list()
    alone = pl.concat(
        [
            build_pool(
                Store(place.store).get("sweeps", key).read(), registry, load_selection("paper-iv"),
                load_profile("paper").negatives,
            )[0]
            for key in keys
        ]
    ).sort("galaxy_id")  # fmt: skip
    assert alone["galaxy_id"].equals(found["galaxy_id"])
    lost = [set(a) - set(b) for a, b in zip(found["n2_flags"], alone["n2_flags"], strict=True)]
    assert {"merger-blend-proxy", "artefact-near-star-proxy"} <= set().union(*lost)


def test_the_engines_and_any_order_give_the_same_pools_at_edges(new_place, keys):
    one, two = new_place("one"), new_place("two")
    for asset in ("sweeps", "sweep_border", "negative_pool"):
        a = complete(asset, keys, in_process(asset, keys, one))
        b = complete(asset, keys, in_processes(asset, keys[::-1], two, 2))
        assert [r.digest for r in a] == [r.digest for r in b]
        assert [r.fingerprint for r in a] == [r.fingerprint for r in b]
    assert a[keys.index("150p000")].facts["beside"] == ["150p005", "155p000"]
    flags = Store(one.store).get("negative_pool", "150p000").read()
    at_edge = flags.filter(pl.col("ra") > 155 - 3 / 3600)
    assert at_edge.height > 30
    assert at_edge["n2_flags"].list.contains("merger-blend-proxy").all()


def test_a_pool_without_a_border_is_found_out_and_made_again_when_it_comes(survey):
    place, tiles, registry, _ = survey
    keys, at = list(tiles), place.open()
    for key in keys:
        make_tile("sweeps", key, place)
    for key in keys[1:]:
        make_tile("sweep_border", key, place)
    for key in keys:
        make_tile("negative_pool", key, place)
    store = Store(place.store)
    assert outdated(at, store.get("negative_pool", keys[0])) == []
    assert outdated(at, store.get("negative_pool", keys[1])) == [f"the border of {keys[0]} was not there"]
    assert surroundings(store, keys[1], keys) is None
    make_tile("sweep_border", keys[0], place)
    assert outdated(at, store.get("negative_pool", keys[1])) == [f"made before the border of {keys[0]} was"]
    assert surroundings(store, keys[1], keys)
    reports = [run_tile("negative_pool", key, place) for key in keys]
    assert [r.reused for r in reports] == [True, False, False, False]
    assert pools(place, keys).equals(whole(place, keys, registry))


def test_a_border_made_under_other_thresholds_is_refused_with_the_remedy(survey):
    place, tiles, *_ = survey
    keys = list(tiles)
    for asset in ("sweeps", "sweep_border"):
        assert all(r.ok for r in in_process(asset, keys, place))
    profile = load_profile("paper")
    n2 = profile.negatives.n2.model_copy(update={"tycho_radius_arcsec": 60.0})
    other = profile.model_copy(update={"negatives": profile.negatives.model_copy(update={"n2": n2})})
    wider = Place.of(place.release, place.store, place.cache, other)
    with pytest.raises(BadInput, match="materialise sweep_border again"):
        make_tile("negative_pool", keys[0], wider)
    assert not make_tile("sweep_border", keys[1], wider).reused


def test_a_tile_that_is_no_longer_in_the_release_is_beside_nobody(survey, tmp_path):
    place, tiles, *_ = survey
    keys = list(tiles)
    for asset in ("sweeps", "sweep_border", "negative_pool"):
        assert all(r.ok for r in in_process(asset, keys, place))
    (tmp_path / "release" / tile_of(tiles[keys[1]]).path).unlink()
    borders, absent = borders_beside(place.open(), keys[0])
    assert ([b.partition for b in borders], absent) == (keys[2:], [])
    assert outdated(place.open(), Store(place.store).get("negative_pool", keys[0])) == [
        f"made with a border of {keys[1]}, which is gone"
    ]
    assert not make_tile("negative_pool", keys[0], place).reused


def test_an_empty_tile_passes_through_all_kernels_and_is_beside_nobody_in_particular(survey, tmp_path):
    place, tiles, *_ = survey
    keys = list(tiles)
    tile = tile_of(tiles[keys[0]])
    write_sweep(tmp_path / "release" / tile.path, tiles[keys[0]][:0], {})
    for asset in KERNELS:
        reports = complete(asset, keys, in_process(asset, keys, place))
        assert [r.error for r in reports] == [None] * len(keys)
        assert reports[0].rows == 0
    lost = Store(place.store).get("negative_pool", keys[0]).read("attrition")
    assert lost["n_in"].sum() == 0
    assert Store(place.store).get("negative_pool", keys[1]).facts["beside"] == [k for k in keys if k != keys[1]]


def tile_of(rows) -> Tile:
    return tile_at(float(rows["RA"][0]), float(rows["DEC"][0]))


# --- Dagster ----------------------------------------------------------------------------------------------------------

ASSETS = [
    surveys.sweep_files, negatives.surroundings, surveys.sweeps, negatives.sweep_border, lenses.lens_registry,
    lenses.channel_files, negatives.negative_pool,
]  # fmt: skip


class Home:
    """An installation over a release that grows, with the automation of the tile assets."""

    def __init__(self, root, instance, registry) -> None:
        self.workspace = Workspace(home=str(root), profile_name="paper")
        (root / "release").mkdir(parents=True)
        self.root, self.instance, self.cursor = root, instance, None
        with self.workspace.store().draft("lens_registry", made_from={"test": 1}) as draft:
            draft.table(registry)
        instance.report_runless_asset_event(dg.AssetMaterialization("lens_registry"))
        self.defs = dg.Definitions(
            assets=[a for a in ASSETS if a is not lenses.lens_registry and a is not lenses.channel_files],
            asset_checks=[borders_read],
            resources={"workspace": self.workspace, "artefacts": ArtefactIOManager(workspace=self.workspace)},
        )
        self.job = self.defs.resolve_implicit_global_asset_job_def()

    def tick(self) -> dict[str, set[str]]:
        """One look of the automation; what it asks for is made."""
        found = dg.evaluate_automation_conditions(self.defs, self.instance, cursor=self.cursor)
        self.cursor = found.cursor
        names = ("sweeps", "sweep_border", "negative_pool")
        asked = {name: set(found.get_requested_partitions(dg.AssetKey(name))) for name in names}
        for name, tiles in asked.items():
            for tile in sorted(tiles):
                result = self.job.execute_in_process(
                    instance=self.instance, asset_selection=[dg.AssetKey(name)], partition_key=tile
                )
                checks = result.get_asset_check_evaluations()
                assert [c.passed for c in checks] == [True] * (name == "negative_pool"), checks
        return {name: tiles for name, tiles in asked.items() if tiles}

    def until_rest(self) -> list[dict[str, set[str]]]:
        made = []
        while step := self.tick():
            made.append(step)
            assert len(made) < 12
        return made


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("ENGINE", "EMR", "SPARK_MASTER", "HOME", "STORE", "CACHE", "RELEASE"):
        monkeypatch.delenv(f"LENS_ASSETS_{name}", raising=False)
    tiles = crowd(CORNERS["RA 0"], 60)
    far = tiles["000p000"].copy()
    far["RA"] += 20
    cells = [brick_at(a, d) for a, d in zip(far["RA"], far["DEC"], strict=True)]
    far["BRICKID"], far["BRICKNAME"] = [c.brickid for c in cells], [c.name for c in cells]
    with dg.DagsterInstance.ephemeral() as instance:
        made = Home(tmp_path / "home", instance, lens_across(tiles)[0])
        for key in ("000p000", "000p005"):
            write(made.root / "release", key, tiles[key])
        write(made.root / "release", "020p000", far)
        made.tick()  # the first look of all asks for nothing
        synchronise("tile", made.workspace, instance)
        yield made, tiles


def test_a_late_tile_renews_the_pools_beside_it_over_ra_0_once_and_no_other(home):
    here, tiles = home
    assert here.until_rest()[-1] == {"negative_pool": {"000p000", "000p005", "020p000"}}
    write(here.root / "release", "355p000", tiles["355p000"])
    synchronise("tile", here.workspace, here.instance)
    assert here.until_rest() == [
        {"sweeps": {"355p000"}},
        {"sweep_border": {"355p000"}},
        {"negative_pool": {"355p000", "000p000", "000p005"}},
    ]
    store, keys = here.workspace.store(), ["000p000", "000p005", "355p000"]
    sky = pl.concat([store.get("sweeps", key).read() for key in keys])
    settings = here.workspace.profile().negatives
    registry = store.get("lens_registry").read()
    one = build_pool(sky, registry, load_selection(settings.selection), settings)[0]
    found = pl.concat([store.get("negative_pool", key).read() for key in keys])
    assert found.sort("galaxy_id").equals(one.sort("galaxy_id"))


def test_a_border_that_came_out_the_same_renews_no_pool_and_a_withdrawn_tile_renews_those_it_touched(home):
    here, tiles = home
    here.until_rest()
    here.job.execute_in_process(
        instance=here.instance, asset_selection=[dg.AssetKey("sweep_border")], partition_key="000p005"
    )
    assert here.tick() == {}
    (here.root / "release" / tile_of(tiles["000p005"]).path).unlink()
    synchronise("tile", here.workspace, here.instance)
    assert here.until_rest() == [{"negative_pool": {"000p000"}}]
    assert here.workspace.store().get("negative_pool", "000p000").facts["beside"] == []


def test_the_sensor_that_withdraws_a_tile_tells_those_beside_it_what_they_have_now(home):
    here, tiles = home
    here.until_rest()

    def look(cursor):
        context = dg.build_sensor_context(instance=here.instance, cursor=cursor)
        return tick("tile", context, here.workspace)

    cursor = look(None).cursor  # nothing was looked at before: all is told
    (here.root / "release" / tile_of(tiles["000p005"]).path).unlink()
    gone = look(look(cursor).cursor)
    told = {e.partition: e.tags["dagster/data_version"] for e in gone.asset_events if e.asset_key == SURROUNDINGS_KEY}
    store = here.workspace.store()
    assert told == {"000p000": surroundings(store, "000p000", ["000p000", "020p000"])}
    assert told["000p000"] != surroundings(store, "000p000", ["000p000", "000p005", "020p000"])
