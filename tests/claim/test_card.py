"""The card as a whole: claim.json, the report's section, the terminal, what it says of its limits."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kfpbench.claim.card import FILE_NAME, build_card, write_claim
from kfpbench.claim.interleaved import InterleavedRatios, read_times, write_times
from kfpbench.claim.terminal import render_card
from kfpbench.errors import StoreError
from kfpbench.report.html import render_report
from kfpbench.runner.interleaved_timing import BatchTimes
from kfpbench.runner.machine_load import MachineLoad

NUMBER_KEYS = {"name", "value", "ci_low", "ci_high", "unit", "n", "how"}
PART_KEYS = {
    "part",
    "title",
    "verdict",
    "decision",
    "reason",
    "rule",
    "threshold",
    "number",
    "evidence",
    "notes",
    "cells",
    "candidates",
}


def in_turns(slow: str, fast: str, ratio: float, others: float = 0.0) -> InterleavedRatios:
    """Times of two cells in 12 rounds whose ratios lie within 1 % of ``ratio``."""
    rounds = [1.0 + 0.02 * ((7 * k) % 12) / 12 for k in range(12)]
    seconds = {
        slow: tuple(ratio * r * (1 + 0.01 * ((5 * k) % 12 - 5.5) / 6) for k, r in enumerate(rounds)),
        fast: tuple(rounds),
    }
    load = MachineLoad(others, 0.5, 10.0, 2, 1)
    return InterleavedRatios((BatchTimes(1, seconds, dict.fromkeys(seconds, 1), dict.fromkeys(seconds, ()), load),))


def test_claim_json_is_strict_and_complete(run: Any, tmp_path: Path) -> None:
    card = write_claim(run.usual(recall=0.0, noise=0.0).manifest, run.records, tmp_path)
    assert card is not None
    content = json.loads((tmp_path / FILE_NAME).read_text(), parse_constant=pytest.fail)
    assert content["schema_version"] == 1
    assert content["sentence"] == "0.29 s per CIFAR-10 image with a slight loss of diversity"
    assert content["suite"] == "made_up"
    assert content["options"]["slight"] == 0.1
    assert [one["spectral"] for one in content["answers"]] == ["koopman"]
    parts = content["answers"][0]["parts"]
    assert [one["part"] for one in parts] == [
        "seconds",
        "reference_speed",
        "few_step_speed",
        "diversity",
        "memorisation",
    ]
    for one in parts:
        assert set(one) == PART_KEYS
        assert one["verdict"] in ("holds", "does not hold", "cannot be tested here")
        assert one["number"] is None or set(one["number"]) == NUMBER_KEYS
        assert all(set(number) == NUMBER_KEYS for number in one["evidence"])
        assert one["rule"]
    assert parts[2]["candidates"][0]["frechet"]["value"] == 140.0


def test_a_suite_without_a_claim_has_no_card(run: Any, tmp_path: Path) -> None:
    run.usual()
    del run.manifest["claim"]
    (tmp_path / FILE_NAME).write_text("{}")  # of the suite before it was edited
    assert write_claim(run.manifest, run.records, tmp_path) is None
    assert not (tmp_path / FILE_NAME).exists()
    assert 'id="claim"' not in render_report(run.manifest, run.records, tmp_path)


def test_a_manifest_with_a_damaged_claim_is_refused(run: Any) -> None:
    run.manifest["claim"] = {"spectral": "koopman"}
    with pytest.raises(StoreError, match="claim"):
        build_card(run.manifest, run.records)


def test_several_spectral_samplers_have_an_answer_each(run: Any) -> None:
    run.manifest["claim"]["spectral"] = ["koopman", "jump"]
    run.usual()
    run.add("jump", seconds=1.0)
    first, second = run.card().answers
    assert (first.label, first.parts[0].verdict) == ("koopman", "holds")
    assert (second.label, second.parts[0].verdict) == ("jump", "does not hold")


class TestReport:
    def test_every_part_is_shown_with_its_verdict_number_and_rule(self, run: Any, tmp_path: Path) -> None:
        run.usual(recall=0.3, blended=0.048)
        text = render_report(run.manifest, run.records, tmp_path)
        section = text[text.index('<section id="claim"') : text.index("Limits")]
        words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", section))
        for part in run.card().answers[0].parts:
            assert part.verdict in words
            assert part.title.replace("'", "&#39;") in words or part.title in words
            assert part.rule.replace("'", "&#39;") in words
        assert "0.4" in words
        assert "ddim, 8 steps" in words
        assert 'href="#claim"' in text

    def test_names_are_escaped(self, run: Any, tmp_path: Path) -> None:
        run.usual()
        run.records[1] |= {"status": "failed", "reason": "<script>alert(1)</script>", "measurements": []}
        assert "<script>alert(1)" not in render_report(run.manifest, run.records, tmp_path)


class TestTerminal:
    def shown(self, run: Any, width: int = 100, *, terminal: bool = False) -> str:
        stream = io.StringIO()
        render_card(run.card(), Console(file=stream, width=width, force_terminal=terminal, color_system=None))
        return stream.getvalue()

    def test_verdicts_numbers_and_reasons_are_plain_text(self, run: Any) -> None:
        text = self.shown(run.usual(recall=0.3, seconds=0.29))
        assert re.search(r"^cannot be tested here\s+1\. seconds per image", text, re.MULTILINE)
        assert re.search(r"^does not hold\s+4\. loss of diversity", text, re.MULTILINE)
        assert re.search(r"^holds\s+2\. speed-up against euler_maruyama, 1000 steps", text, re.MULTILINE)
        assert "loss of recall: 0.4" in text
        assert "why: the 95 % interval holds the threshold" in text
        assert "\x1b" not in text

    @pytest.mark.parametrize("width", [60, 80, 140])
    def test_it_fits_the_terminal(self, run: Any, width: int) -> None:
        lines = self.shown(run.usual(), width, terminal=True).splitlines()
        titles = [one for one in lines if re.match(r"^(holds|does not hold|cannot)", one)]
        assert len(titles) == 5
        assert max(map(len, set(lines) - set(titles))) <= max(width, 67)


class TestConditions:
    def test_the_network_is_named_with_its_distance(self, run: Any) -> None:
        conditions = run.usual().card().conditions
        assert conditions["score network"] == "unet, trained as cifar10_unet, 302,464 images seen, sha256 abababababab"
        assert conditions["its Fréchet distance"].startswith("100 (96 to 104) with euler_maruyama, 1000 steps")
        assert conditions["n"] == "500"

    def test_what_does_not_beat_a_sampler_without_a_network_is_said(self, run: Any) -> None:
        said = " ".join(run.usual(frechet=181.0).card().limits)
        assert "koopman is not told apart from the control gaussian" in said
        assert "euler_maruyama is clearly better than the control gaussian" in said

    def test_a_trial_is_no_answer(self, run: Any) -> None:
        run.add("koopman", seconds=0.004, n=40)
        run.add("euler_maruyama", seconds=0.04, steps=5, n=40)
        said = " ".join(run.card().limits)
        assert "not euler_maruyama with 1000 steps: this is a trial of the card, not an answer" in said
        assert "n = 40: below 500" in said
        assert run.part("reference_speed").title == "speed-up against euler_maruyama, 5 steps"

    def test_other_data_are_not_those_of_the_sentence(self, run: Any) -> None:
        run.add("euler_maruyama", steps=1000, spec={"data": {"name": "digits", "reference": "test"}})
        assert any("The data are digits" in one for one in run.card().limits)


class TestTimesInTurns:
    """Where the run timed two samplers in turns, their ratio is taken, not that of the cells' medians."""

    def test_they_go_before_the_cells_own(self, run: Any) -> None:
        run.usual(seconds=8.1)  # by the cells' own times the interval holds 1
        assert run.part("reference_speed").decision == "crosses"
        slow, fast = run.records[1]["cell"], run.records[0]["cell"]
        part = run.part("reference_speed", in_turns(slow, fast, 1.2))
        assert part.decision == "cleared"
        assert part.number is not None
        assert part.number.value == pytest.approx(1.2, rel=0.01)
        assert part.number.how.startswith("taken in turns, 12 rounds")
        assert run.part("reference_speed", in_turns(slow, fast, 0.8)).decision == "missed"

    def test_load_during_them_is_said(self, run: Any) -> None:
        run.usual()
        ratios = in_turns(run.records[1]["cell"], run.records[0]["cell"], 1.2, others=0.5)
        assert any("other programs had 50%" in note for note in run.part("reference_speed", ratios).notes)
        assert not any("other programs" in note for note in run.part("few_step_speed", ratios).notes)

    def test_the_file_gives_back_what_was_written(self, tmp_path: Path) -> None:
        assert read_times(tmp_path) == InterleavedRatios()
        ratios = InterleavedRatios(in_turns("a", "b", 3.0).times, "a note")
        write_times(ratios, tmp_path)
        assert read_times(tmp_path) == ratios
        (tmp_path / "claim_times.json").write_text('{"schema_version": 9}')
        with pytest.raises(StoreError, match="schema"):
            read_times(tmp_path)

    def test_why_there_are_none_is_said(self, run: Any) -> None:
        ratios = InterleavedRatios(note="the samplers could not be timed in turns: ValueError: no")
        assert "could not be timed in turns" in " ".join(run.usual().part("reference_speed", ratios).notes)
