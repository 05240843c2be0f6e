"""What somebody reads when a step of the chain fails."""

import dagster as dg

from lens_assets.chain import Step, _explain
from lens_assets.science.errors import BadInput


def test_a_failed_step_says_what_the_asset_raised_and_not_what_that_was_raised_from(instance):
    @dg.asset
    def broken() -> None:
        try:
            raise OSError("no SIMPLE card")
        except OSError as fault:
            raise BadInput("not a FITS table: name the catalogue", file="images.fits") from fault

    done = dg.materialize([broken], instance=instance, raise_on_error=False)
    text = _explain(Step("injecting arcs", None, ("broken",)), None, done)
    assert "injecting arcs failed" in text
    assert "BadInput: file 'images.fits': not a FITS table: name the catalogue" in text
    assert "SIMPLE" not in text
