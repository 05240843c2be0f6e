"""An asset whose upload was cut off is sent again, not made again."""

import pytest

from lens_assets.science.engines.recognise import ensure
from lens_assets.science.storage import objects, verify


def test_what_was_made_but_not_sent_is_sent_by_the_next_run_without_being_made_again(bucket, monkeypatch):
    made = []

    def make(draft):
        made.append(1)
        draft.path("part.bin").write_bytes(b"x" * 10_000)

    with monkeypatch.context() as patch:
        patch.setattr(objects.Objects, "upload", lambda *_: (_ for _ in ()).throw(OSError("unplugged")))
        with pytest.raises(OSError, match="unplugged"):
            ensure(bucket.open(), "thing", "p1", {"code": "x"}, make)
    artefact, reused = ensure(bucket.open(), "thing", "p1", {"code": "x"}, make)
    assert (len(made), reused) == (1, True)
    verify(artefact)


def test_another_identity_or_a_forced_run_is_made_afresh(bucket, monkeypatch):
    made = []

    def make(draft):
        made.append(1)
        draft.path("part.bin").write_bytes(b"x" * 10_000)

    for key, identity, force in (("p1", {"code": "y"}, False), ("p2", {"code": "x"}, True)):
        with monkeypatch.context() as patch:
            patch.setattr(objects.Objects, "upload", lambda *_: (_ for _ in ()).throw(OSError("unplugged")))
            with pytest.raises(OSError, match="unplugged"):
                ensure(bucket.open(), "thing", key, {"code": "x"}, make)
        before = len(made)
        artefact, reused = ensure(bucket.open(), "thing", key, identity, make, force=force)
        assert (len(made) - before, reused) == (1, False)
        verify(artefact)
