"""The pure difference behind the sensors."""

from hypothesis import given
from hypothesis import strategies as st

from lens_assets.automation.changes import changes

listings = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("123"))


def test_new_changed_and_vanished_keys_are_told_apart():
    found = changes({"a": "1", "b": "2", "c": "1"}, {"b": "1", "c": "1", "d": "1"})
    assert (found.new, found.changed, found.vanished) == (("a",), ("b",), ("d",))
    assert found.arrived == ("a", "b")


def test_a_key_that_exists_but_was_never_looked_at_is_looked_at_but_not_added_again():
    found = changes({"a": "1"}, {}, existing=["a"])
    assert (found.new, found.changed) == ((), ("a",))


@given(listings, listings, st.sets(st.sampled_from("abcdef")))
def test_every_key_is_new_changed_vanished_or_the_same(now, before, existing):
    found = changes(now, before, existing)
    same = {key for key in now if before.get(key) == now[key]}
    assert set(found.new) | set(found.changed) | same == set(now)
    assert not set(found.new) & set(found.changed)
    assert not set(found.arrived) & same
    assert set(found.vanished) == set(before) - set(now)


@given(listings)
def test_looking_twice_at_the_same_listing_finds_nothing(now):
    assert not changes(now, now, existing=now)
