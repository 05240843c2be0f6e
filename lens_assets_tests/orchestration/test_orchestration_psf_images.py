"""Images of the PSF through Dagster: `sersic-psf-images` beside its pair, to the release; what a chain refuses and renews."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
from astropy.io import fits

from lens_assets.chain import ChainFailed, run_chain
from lens_assets.cli.mock import write
from lens_assets.definitions import defs
from lens_assets.resources.workspace import Workspace
from lens_assets.science.completeness.detectability import gate_statistic
from lens_assets.science.cutouts.shard import ShardSet
from lens_assets.science.injections.batch import inject
from lens_assets.science.injections.psf import PsfSpec
from lens_assets.science.injections.psf_images import SETTING
from lens_assets.science.injections.render import render
from lens_assets.science.injections.scene import scene_of
from lens_assets.science.injections.variants import load_variants
from lens_assets.science.mock.footprint import plan
from lens_assets.science.mock.psf_images import write_psf_images
from lens_assets.science.mock.settings import load_size
from lens_assets.science.provenance import CONFIG
from lens_assets_tests.orchestration.test_orchestration_chain import SEED, Home, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
PAIR, IMAGES = "sersic-population", "sersic-psf-images"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The PSF images of the practice sky's bricks."""
    place, size = tmp_path_factory.mktemp("psf") / "images", load_size("tiny")
    write_psf_images(place, size, plan(size, SEED), SEED)
    return place


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[Home]:
    """A chain that stopped for want of images, and was continued with them."""
    root = tmp_path_factory.mktemp("chain")
    text = (CONFIG / "profiles" / "tiny.yaml").read_text()
    (root / "both.yaml").write_text(text.replace(f"variants: [{PAIR}]", f"variants: [{PAIR}, {IMAGES}]"))
    (root / "dagster").mkdir()
    workspace = Workspace(home=str(root), profile_name=str(root / "both.yaml"))
    with (
        environment(DAGSTER_HOME=str(root / "dagster"), **{SETTING: ""}),
        warnings.catch_warnings(),
        dg.DagsterInstance.local_temp(str(root / "dagster")) as instance,
    ):
        warnings.simplefilter("ignore")  # of the libraries that train and plot: their rooms' tests hear them
        write(root, "tiny", SEED, 2)
        with pytest.raises(ChainFailed, match=f"injecting arcs.*{IMAGES}.*(?s:.)*set {SETTING}"):
            list(run_chain(defs, workspace, instance))
        with environment(**{SETTING: str(folder)}):
            yield Home(workspace, instance, list(run_chain(defs, workspace, instance)), [])


def batches(home: Home, variant: str, table: str = "data") -> pl.DataFrame:
    """All injections of a variant."""
    store = home.workspace.store()
    return pl.concat([
        store.get("injection_batch", p).read(table) for p in store.partitions("injection_batch") if p.endswith(variant)
    ])  # fmt: skip


def test_a_variant_of_images_gets_batches_scores_a_report_a_surface_and_a_comparison_in_pairs(home: Home) -> None:
    store = home.workspace.store()
    mine, other = batches(home, IMAGES), batches(home, PAIR)
    drawn = ["galaxy_id", "theta_e", "source_x", "source_re", "source_mag_r", "psfsize_r"]
    assert mine.select(drawn).equals(other.select(drawn))
    key = f"tiny-s1+{IMAGES}"
    scored = store.get("injection_scores", key).read()
    assert set(scored["injection_id"]) == set(mine["injection_id"])
    assert store.get("realism", key).json("report")["facts"]
    assert store.get("completeness_surface", key).manifest["digest"]
    assert store.find("closure", key) is not None
    pairs = store.get("sensitivity").read("pairs")
    assert pairs.height
    assert store.get("sensitivity").facts["surfaces"] == 2
    assert [p for p in home.workspace.product_folder.iterdir() if not p.name.startswith(".")]


def test_what_dagster_injected_has_the_light_of_the_image_of_the_hosts_brick(home: Home, folder: Path) -> None:
    store, settings = home.workspace.store(), home.workspace.profile().injections
    stamps = ShardSet([store.get("cutouts", p).folder for p in store.partitions("cutouts")])
    rows = batches(home, IMAGES).sort("injection_id")[::7]
    statistic = batches(home, IMAGES, "gate")
    for row in rows.iter_slices(1):
        chunk = next(inject(row, stamps, settings, load_variants()[IMAGES]))
        brick = folder / f"{row['galaxy_id'][0].split('-')[1]}.fits"
        alone = render(scene_of(row), PsfSpec(kind="image", file=str(brick)))
        assert chunk.arcs.images.tobytes() == alone.images.tobytes()
        stored = statistic.filter(pl.col("injection_id") == chunk.ids[0])["gate_statistic"][0]
        assert float(gate_statistic(chunk.images, chunk.invvar, None).total[0]) == pytest.approx(stored, rel=1e-6)


def test_another_image_renews_the_batches_of_images_alone_and_nothing_else_renews_them(
    home: Home, folder: Path, tmp_path: Path
) -> None:
    assert all(home.again(("injection_batch",)).values())
    changed = Path(shutil.copytree(folder, tmp_path / "psf"))
    with environment(**{SETTING: str(changed)}):  # the same files at another place are the same images
        assert all(home.again(("injection_batch",)).values())
    brick = batches(home, IMAGES)["galaxy_id"][0].split("-")[1]
    with fits.open(changed / f"{brick}.fits", mode="update") as hdus:
        for hdu in hdus[1:]:
            hdu.data = np.rot90(hdu.data).copy()
    with environment(**{SETTING: str(changed)}):
        reused = home.again(("injection_batch",))
    assert {name for name, was in reused.items() if not was} == {name for name in reused if IMAGES in name}


def test_a_host_without_an_image_stops_the_batch_and_is_named(home: Home, folder: Path, tmp_path: Path) -> None:
    fewer = Path(shutil.copytree(folder, tmp_path / "psf"))
    lost = batches(home, IMAGES)["galaxy_id"][0].split("-")[1]
    (fewer / f"{lost}.fits").unlink()
    with (
        environment(**{SETTING: str(fewer)}),
        pytest.raises(ChainFailed, match=rf"hosts have no PSF image.*-{lost}-(?s:.)*lens-assets psf"),
    ):
        home.again(("injection_batch",))
