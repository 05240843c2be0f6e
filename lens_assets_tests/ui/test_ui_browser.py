"""The user interface as a person meets it: servers started by the command, pages opened in a real browser."""

import json
import os
import shutil
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lens_assets.cli.home import prepare_home
from lens_assets.cli.ui import start, stop, wait_for

CHROMIUM = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH: deploy/setup-browser.sh installs one"),
]


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Ui:
    """Running servers of one installation."""

    def __init__(self, home: Path, dagster: int, mlflow: int) -> None:
        self.home, self.dagster, self.mlflow = home, f"http://127.0.0.1:{dagster}", f"http://127.0.0.1:{mlflow}"

    def ask(self, query: str) -> dict:
        """Answer of the GraphQL interface."""
        request = urllib.request.Request(
            f"{self.dagster}/graphql",
            data=json.dumps({"query": query}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found["errors"]
        return found["data"]


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    home = tmp_path_factory.mktemp("home")
    (home / "catalogues").mkdir()
    (home / "release" / "south" / "sweep" / "10.1").mkdir(parents=True)
    before = dict(os.environ)
    os.environ["LENS_ASSETS_PROFILE"] = "tiny"
    prepare_home(home)
    dagster, mlflow = free_port(), free_port()
    processes = start(home, "127.0.0.1", dagster, mlflow)
    try:
        wait_for("127.0.0.1", dagster, processes)
        wait_for("127.0.0.1", mlflow, processes)
        yield Ui(home, dagster, mlflow)
    finally:
        stop(processes)
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def page(ui: Ui) -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    ui.ask("mutation { setNuxSeen }")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser.new_page(viewport={"width": 1600, "height": 1000})
        browser.close()


NODES = """{ assetNodes { assetKey { path } groupName kinds description isObservable isExecutable
  owners { __typename }
  metadataEntries { __typename label ... on TableSchemaMetadataEntry { schema { columns { name } } } } } }"""


def test_the_code_location_loads_without_a_warning_or_an_error(ui: Ui):
    found = ui.ask(
        """{ workspaceOrError { ... on Workspace { locationEntries { name loadStatus
        locationOrLoadError { __typename
          ... on RepositoryLocation { name repositories { name } } ... on PythonError { message } } } } } }"""
    )
    (entry,) = found["workspaceOrError"]["locationEntries"]
    assert entry["loadStatus"] == "LOADED"
    assert entry["locationOrLoadError"]["__typename"] == "RepositoryLocation", entry
    log = (ui.home / "logs" / "dagster.log").read_text()
    for word in ("PreviewWarning", "BetaWarning", "DeprecationWarning"):
        assert word not in log


def test_every_asset_has_group_kinds_description_owner_and_a_column_schema(ui: Ui):
    nodes = ui.ask(NODES)["assetNodes"]
    assert len(nodes) > 20
    for node in nodes:
        name = node["assetKey"]["path"][-1]
        assert node["groupName"] not in (None, "default"), name
        assert node["kinds"], name
        assert node["description"], name
        assert node["owners"], name
        if node["isExecutable"]:
            schemas = [e for e in node["metadataEntries"] if e["__typename"] == "TableSchemaMetadataEntry"]
            assert schemas, name
            assert len(schemas[0]["schema"]["columns"]) >= 2, name


def test_the_asset_graph_is_drawn_in_a_browser(ui: Ui, page):
    page.goto(f"{ui.dagster}/locations/lens_assets/asset-groups/lenses")
    page.get_by_text("lens_registry", exact=True).first.wait_for(timeout=30_000)
    assert page.get_by_text("lens_channel", exact=True).count() > 0
    page.goto(f"{ui.dagster}/assets/lens_registry?view=overview")
    page.get_by_text("friends of friends", exact=False).first.wait_for(timeout=30_000)


def test_the_mlflow_page_answers(ui: Ui, page):
    page.goto(ui.mlflow)
    page.get_by_text("Experiments", exact=False).first.wait_for(timeout=60_000)


def test_a_catalogue_dropped_into_the_folder_becomes_a_channel_and_is_read(ui: Ui):
    text = "name,RA,DEC,grade\nA1,10.5,-1.25,A\nB2,11.5,2.5,B\n"
    (ui.home / "catalogues" / "dropped.csv").write_text(text)
    deadline = time.monotonic() + 120
    rows = None
    while time.monotonic() < deadline and rows is None:
        time.sleep(2)
        found = ui.ask(
            """{ assetNodeOrError(assetKey: {path: ["lens_channel"]}) { ... on AssetNode {
            assetMaterializations(limit: 5) { partition
            metadataEntries { label ... on IntMetadataEntry { intValue } } } } } }"""
        )["assetNodeOrError"]["assetMaterializations"]
        for event in found:
            if event["partition"] == "dropped":
                rows = next(e["intValue"] for e in event["metadataEntries"] if e["label"] == "dagster/row_count")
    assert rows == 2
