"""The blinded panel as a page and its votes, the report as a page, and all reports side by side."""

import base64
import io
import json
import re

import numpy as np
import polars as pl
import pytest
from PIL import Image

from lens_assets.science.cutouts.settings import NormalisationSpec
from lens_assets.science.errors import BadInput
from lens_assets.science.injections.variants import Variant
from lens_assets.science.realism import assemble as rooms
from lens_assets.science.realism.figures import write_figures
from lens_assets.science.realism.overview import Entry, lines, overview_page, two_by_two
from lens_assets.science.realism.page import realism_page
from lens_assets.science.realism.panel import assemble
from lens_assets.science.realism.panel_page import panel_page
from lens_assets.science.realism.report import realism_report
from lens_assets.science.realism.settings import Matching, Settings
from lens_assets.science.realism.stamps import StampSet
from lens_assets.science.realism.votes import panel_gate, read_votes, score, vote_files

QUICK = Settings(
    permutations=20, bootstrap_draws=50, control_splits=2, probe_repeats=1, min_real=20,
    matching=Matching(psfsize_arcsec=0.3, depth_mag=0.8, brightness_mag=1.5),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(sky):
    rng = np.random.default_rng(5)

    def stamps(n, prefix, **more):
        images = sky.galaxies(rng, n) + sky.noise(rng, n) + sky.arcs(rng, n, flux=10 ** rng.uniform(0, 0.6, n))
        frame = sky.frame(rng, n, prefix)
        return StampSet.of(images, sky.weights(n), frame.with_columns(**more), rng.normal(size=(n, 12)))

    real = stamps(40, "secret-r", tier=pl.lit("A"))
    injected = stamps(60, "h", id=pl.concat_str(pl.lit("secret-i-"), "galaxy_id"))
    return real, injected


@pytest.fixture(scope="module")
def panel(world):
    return assemble(*world, 20, ("p",))


def test_the_panel_page_gives_nothing_away(panel):
    page = panel_page(panel)
    assert page == panel_page(panel)
    assert "secret" not in page
    content = json.loads(re.search(r'id="panel">(.*?)</script>', page).group(1))
    assert set(content) == {"panel", "grades", "stamps"}
    assert len(content["stamps"]) == 20
    for answer in panel.key["answers"]:
        assert answer["id"] not in page
    assert panel.key["salt"] not in page
    assert not re.search(r'(?:src|href)="?(?:http|/)', page)  # nothing from outside
    sizes = set()
    for stamp in content["stamps"]:
        image = Image.open(io.BytesIO(base64.b64decode(stamp)))
        sizes.add(image.size)
        assert not image.info  # no text, no time, no name
    assert len(sizes) == 1


def ballots(panel, folder):
    """A grader who sees through all of it, as JSON, and one who guesses, as CSV; files as the page exports them."""
    truth = {a["number"]: a["kind"] == "injected" for a in panel.key["answers"]}
    seer = {"panel": panel.digest, "grader": "seer", "grades": {str(n): 3 if t else 0 for n, t in truth.items()}}
    (folder / "seer.json").write_text(json.dumps(seer))
    rng = np.random.default_rng(1)
    rows = [f'{panel.digest},"O, Guesser",{n},{rng.integers(0, 4)}' for n in truth]
    (folder / "guess.csv").write_text("panel,grader,number,grade\n" + "\n".join(rows) + "\n")
    return vote_files(folder)


def test_votes_are_read_as_the_page_exports_them_and_scored_with_intervals(panel, tmp_path):
    files = ballots(panel, tmp_path)
    digest, votes = read_votes(files)
    assert digest == panel.digest
    assert set(votes) == {"seer", "O, Guesser"}
    found = score(panel.key, files, draws=200)
    seer, guesser = found["graders"]["seer"], found["graders"]["O, Guesser"]
    assert (seer["right"], seer["called"], seer["auc"]) == (20, 20, 1.0)
    assert seer["auc_lo95"] == 1.0
    assert guesser["auc_lo95"] < guesser["auc"] < guesser["auc_hi95"]
    assert guesser["auc_lo95"] < 0.5 < guesser["auc_hi95"]
    assert found["pooled"]["stamps"] == 20


def test_votes_feed_the_sixth_gate_and_without_them_it_is_insufficient(panel, tmp_path):
    gate = panel_gate(panel.key, ballots(panel, tmp_path))
    assert gate.name == "blinded_panel"
    assert gate.status == "reported"
    assert gate.lo95 <= gate.value <= gate.hi95
    assert (gate.n_real, gate.n_injected) == (10, 10)
    assert panel_gate(panel.key, []).detail["reason"] == "no votes were given"
    assert "too few" in panel_gate(None, []).detail["reason"]


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.json", "{", "not a vote file"),
        ("a.json", '{"panel": "x", "grader": "y"}', "not a vote file"),
        ("a.json", '{"panel": "x", "grader": "y", "grades": {"1": 4}}', "grades are 0 to 3"),
        ("a.csv", "panel,grader,number\nx,y,1\n", "not a vote file"),
        ("a.csv", "panel,grader,number,grade\nx,y,1,2\nz,y,1,2\n", "others are for"),
    ],
)
def test_a_broken_ballot_is_refused_with_its_name(tmp_path, name, body, message):
    (tmp_path / name).write_text(body)
    with pytest.raises(BadInput, match=message) as caught:
        read_votes([tmp_path / name])
    assert name in str(caught.value)


def test_the_report_page_holds_verdict_gates_figures_and_both_galleries(world, tmp_path):
    real, injected = world
    bare = StampSet.of(injected.images, injected.invvar, injected.frame.drop("id", "group"), injected.features)
    report = realism_report(real, injected, bare, None, QUICK, ("d", "v"), normalisation=NormalisationSpec())
    report = report.with_gate(panel_gate(None, []))
    assert report.gates[-1].name == "blinded_panel"
    with pytest.raises(BadInput, match="blocks"):
        report.with_gate(report.gate("arc_snr"))
    write_figures(report, tmp_path)
    about = rooms.about(real, calibrated=True)
    assert "40 (40 A)" in about
    page = realism_page(
        report, real, injected, tmp_path, title="Realism of <v>", about=about, before=report, override="a mock sky"
    )
    assert "<v>" not in page
    assert page.count("<h2>") == 5
    for gate in report.gates:
        assert f"<code>{gate.name}</code>" in page
    probe = report.gate("feature_probe")
    assert f"95 % {probe.lo95:.3f} to {probe.hi95:.3f}; {probe.n_real} real, {probe.n_injected} injected" in page
    assert ("a mock sky" in page) == (report.verdict == "no-go")
    assert "secret" not in page


def entry(name, source, hosts, auc):
    gate = {"name": "feature_probe", "value": auc, "lo95": auc - 0.1, "hi95": auc + 0.1, "bar": 0.7, "status": "pass",
            "passed": auc <= 0.7, "n_real": 60, "n_injected": 200}  # fmt: skip
    verdict = "go" if auc <= 0.7 else "no-go"
    variant = Variant(name=name, summary="x", source=source, hosts=hosts)
    return Entry("net-s1", variant, {"verdict": verdict, "gates": [gate], "facts": {}})


def test_all_reports_lie_side_by_side_and_in_the_two_by_two():
    entries = [
        entry("b", "sersic", "matched", 0.65),
        entry("a", "sersic", "random", 0.85),
        entry("c", "clumpy", "random", 0.8),
        entry("q", "point", "random", 0.9),
    ]
    cells = two_by_two(entries, "net-s1")
    assert [e.variant.name for e in cells["parametric", "random"]] == ["a", "c"]
    assert [e.variant.name for e in cells["parametric", "lens-like"]] == ["b"]
    assert cells["real", "random"] == cells["real", "lens-like"] == []
    page = overview_page(entries)
    assert page.count("no report") == 2
    assert "0.850 (0.750 to 0.950), n 60/200" in page
    assert lines(entries)[0].startswith("net-s1 a: no-go; probe AUC 0.850 (0.750 to 0.950)")


def test_a_lens_that_fitted_the_priors_may_not_judge_them():
    lenses = pl.DataFrame({"galaxy_id": ["a", "b", "c"]})
    assert rooms.unseen(lenses, frozenset("bc"), frozenset("a"))["galaxy_id"].to_list() == ["b", "c"]
    with pytest.raises(BadInput, match="would judge them"):
        rooms.unseen(lenses, frozenset("bc"), frozenset("ab"))


def test_quasars_judge_point_sources_and_galaxies_all_others():
    lenses = pl.DataFrame({"galaxy_id": ["a", "b"]})
    kinds = pl.DataFrame({"galaxy_id": ["a", "b"], "kind": ["galaxy", "quasar"]})
    for source, kept in (("sersic", "a"), ("clumpy", "a"), ("point", "b")):
        variant = Variant(name="v", summary="x", source=source)
        assert rooms.of_kind(lenses, kinds, variant)["galaxy_id"].to_list() == [kept]
