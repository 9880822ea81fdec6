"""Cards: what they hold, and that only JSON gets in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from latent3d import __version__
from latent3d.io.cards import Stopwatch, make_card, read_card, write_card


def test_round_trip(tmp_path):
    card = make_card(seed=3, inputs=[Path("a.jpg")], sizes=(1, 2))
    write_card(tmp_path / "card.json", card)
    assert read_card(tmp_path / "card.json") == card
    assert card["versions"]["latent3d"] == __version__
    assert card["versions"]["torch"].startswith("2.")
    assert card["inputs"] == ["a.jpg"]
    assert card["sizes"] == [1, 2]


def test_values_that_json_cannot_hold_are_refused():
    for value in (float("nan"), object()):
        with pytest.raises(ValueError, match="JSON cannot"):
            make_card(value=value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 99}', "{", "[" * 100_000])
def test_bad_cards(tmp_path, text):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(ValueError, match=r"card\.json"):
        read_card(tmp_path / "card.json")
    with pytest.raises(FileNotFoundError):
        read_card(tmp_path / "none.json")


def test_stopwatch_adds_up_even_when_a_stage_fails():
    watch = Stopwatch()
    with watch("a"):
        pass
    first = watch.seconds["a"]
    with pytest.raises(KeyError), watch("a"):
        raise KeyError
    assert watch.seconds["a"] > first >= 0
    assert json.dumps(watch.seconds)
