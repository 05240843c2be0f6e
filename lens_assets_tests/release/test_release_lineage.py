"""Lineage: from all surfaces of a release, not from one of them alone."""

from lens_assets.science.release.lineage import trace
from lens_assets.science.storage import Store


def test_the_way_back_begins_at_every_surface_that_is_named(tmp_path):
    store = Store(tmp_path)

    def made(asset, partition, **made_from):
        with store.draft(asset, partition, made_from=made_from) as draft:
            draft.json("it", {"partition": partition})
        return store.get(asset, partition)

    batches = [made("injection_batch", v, code="1") for v in ("clumpy", "sersic")]
    surfaces = [
        made("completeness_surface", b.partition, **{f"injection_batch[{b.partition}]": b.digest}) for b in batches
    ]
    one, both = trace(store, surfaces[0]), trace(store, *surfaces)
    assert "injection_batch[sersic]" not in one
    assert sorted(both) == [
        f"{a}[{v}]" for a in ("completeness_surface", "injection_batch") for v in ("clumpy", "sersic")
    ]
    assert all(both[name] == value for name, value in one.items())
    assert both == trace(store, *surfaces[::-1])
