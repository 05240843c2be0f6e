"""The report page is whole, says what the report says, and survives hostile text."""

from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from PIL import Image

from lens_assets.science.cutouts import page, page_parts
from lens_assets.science.cutouts.features import MEANING, meaning, noise_lags, shortcut_features
from lens_assets.science.cutouts.report import quality_report
from lens_assets.science.cutouts.settings import Settings
from lens_assets.science.cutouts.shard import Shard, write_shard
from lens_assets.science.storage import Draft
from lens_assets.science.surveys.release import DataRelease

SETTINGS = Settings(bootstrap_draws=50)


class Balance(HTMLParser):
    """Collects tags, text and addresses, and proves that every tag is closed in order."""

    VOID = frozenset({"meta", "img", "br", "line", "circle", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def read(text: str) -> Balance:
    found = Balance()
    found.feed(text)
    assert found.open == []
    return found


@pytest.fixture(scope="module")
def made(practice, tmp_path_factory):
    """A shard of the practice release with a rejected object, and its report."""
    root, rows = practice
    copy = tmp_path_factory.mktemp("release") / "r"
    shutil.copytree(root, copy)
    folder = tmp_path_factory.mktemp("page") / "shard"
    folder.mkdir()
    draft = Draft(folder)
    write_shard(draft, DataRelease(str(copy)), rows, SETTINGS, work=tmp_path_factory.mktemp("work"))
    ids = rows["galaxy_id"].sort()
    sample = pl.DataFrame(
        {
            "galaxy_id": ids,
            "label": [0, 1] * 12,
            "split": ["train", "val", "test"] * 8,
            "cell": range(24),
            "tile": ["150p000"] * 12 + ["<b>x</b>"] * 12,
        }
    )
    return quality_report([Shard.open(folder)], sample, SETTINGS), sample


@pytest.fixture(scope="module")
def text(made) -> str:
    return page.report_page(made[0])


def test_the_page_is_one_file_without_scripts_or_outside_parts(text):
    found = read(text)
    assert text.startswith("<!doctype html>")
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in found.links)
    assert not re.search(r"url\(|@import|https?://", text)
    for link in (v for v in found.links if v.startswith("#")):
        assert f'id="{link[1:]}"' in text


def test_the_same_report_gives_the_same_bytes(made, text):
    assert page.report_page(made[0]) == text


def test_every_object_is_in_the_table_of_losses_by_tile_and_reason(made, text):
    report, sample = made
    assert report.tiles["asked"].sum() == sample.height == 24
    assert report.tiles["kept"].sum() == report.facts["stamps"]
    assert report.rejected_by_tile["n"].sum() == sample.height - report.facts["stamps"]
    table = text.split('id="lost"')[1].split("<h3>")[0]
    cells = [re.sub("<[^>]+>", "", c) for c in re.findall(r"<td[^>]*>(.*?)</td>", table)]
    width = len(re.findall("<th", table)) - 1  # thead counts as one
    total = cells[-width:]
    assert total[0] == "all"
    assert [int(v) for v in total[1:3]] == [24, report.facts["stamps"]]
    assert sum(int(v) for v in total[2:]) == 24
    assert total[-1] == "0"


def test_text_of_the_data_is_text_on_the_page(text):
    assert "<b>x</b>" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text


def test_every_feature_is_there_with_its_auc_interval_n_and_colour_in_words(made, text):
    for r in made[0].shortcuts.iter_rows(named=True):
        row = text.split(f"<td ><code>{r['feature']}</code></td>")[1].split("</tr>")[0]
        assert f">{r['colour']}</span>" in row
        if r["auc"] is not None:
            assert f"{r['auc']:.3f}" in row
        if r["lo68"] is not None:
            assert f"{r['lo68']:.3f} to {r['hi68']:.3f}" in row
        assert f">{r['n']:,}</td>" in row
        assert f">{r['n_pos']:,}</td>" in row


def test_rejected_stamps_are_shown_with_their_reason(made, text):
    report = made[0]
    part = text.split("<h3>Rejected</h3>")[1].split("<h3>")[0]
    shown = re.findall(r"<figcaption>([^<]+)</figcaption>", part)
    reasons = dict(report.lost.iter_rows())
    assert shown
    for caption in shown:
        name, reason = caption.split(": ", 1)
        assert reasons[name] == reason


def test_the_search_for_duplicates_states_its_misses_and_false_alarms(made, text):
    part = read(text.split('id="twice"')[1].split('<h2 id="method"')[0].join(["<h2>", ""]))
    words = " ".join(" ".join(part.words).split())
    measured = made[0].facts["duplicates"]["calibration"]
    for what, n in measured["found"].items():
        assert f"{what} {n} of {measured['tried']}" in words
    assert f"of {measured['null_pairs']:,} pairs with one stamp turned" in words


def test_a_report_on_nothing_is_a_page_too():
    schema = {"galaxy_id": pl.String, "label": pl.Int8, "split": pl.String, "cell": pl.Int64, "tile": pl.String}
    found = read(page.report_page(quality_report([], pl.DataFrame(schema=schema), SETTINGS)))
    assert "insufficient" in " ".join(found.words)


def test_a_stamp_in_the_page_is_its_colours_with_north_up():
    stamp = np.zeros((3, 101, 101), np.float32)
    stamp[2, 80:] = 0.5  # red in the north
    tag = page_parts.picture(stamp)
    data = base64.b64decode(re.search(r"base64,([^\"]+)", tag).group(1))
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    assert pixels.shape == (101, 101, 3)
    assert pixels[5, 50].argmax() == 0
    assert pixels[5, 50].max() > pixels[90, 50].max()


def test_a_histogram_says_when_its_axis_is_not_linear_and_shows_both_classes():
    values = np.linspace(0, 1, 200)
    plain = page_parts.histogram(values, values + 1)
    assert plain.count("<polyline") == 2
    assert "asinh" not in plain
    assert "asinh" in page_parts.histogram(values**12 * 1e4, values)
    assert "no values" in page_parts.histogram(np.full(3, np.nan), np.empty(0))
    points = re.findall(r'points="([^"]+)"', plain)[0].split()
    assert min(float(p.split(",")[0]) for p in points) == 1.0
    assert max(float(p.split(",")[0]) for p in points) == 179.0


def test_an_interval_is_drawn_where_its_numbers_are():
    svg = page_parts.interval_graph(0.75, 0.70, 0.80)
    low, high, dot = (
        float(v)
        for v in re.search(r'x1="([\d.]+)" x2="([\d.]+)" y1="9" y2="9" stroke="#1c2430".*cx="([\d.]+)"', svg).groups()
    )
    assert (low, dot, high) == pytest.approx((61, 75, 89))
    assert 'aria-label="0.750, 0.700 to 0.800"' in svg


def test_every_feature_has_a_meaning():
    images = np.random.default_rng(0).normal(0, 1, (2, 3, 101, 101)).astype(np.float32)
    names = [
        *shortcut_features(images, np.ones_like(images)).columns,
        *noise_lags(images, np.ones_like(images)).columns,
    ]
    assert all(meaning(name) for name in names)
    assert {stem for stem in MEANING if not any(n.startswith(stem) for n in names)} == set()
    assert meaning("annulus_snr_g") != meaning("annulus_g")
    assert meaning("mad_r") != meaning("median_r")


def test_the_two_of_a_pair_stay_together_at_the_end_of_a_line():
    four = np.zeros((4, 3, 11, 11), np.float32)
    html = page_parts.stamps(four, list("abcd"), "pairs")
    assert [part.count("<figure>") for part in html.split('<div class="pair">')] == [0, 2, 2]
    assert 'class="pair"' not in page_parts.stamps(four, list("abcd"))
