"""Several runs as one folder, one table, one report; tables in common formats."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_cells import make_cell, make_run

from kfpbench.cli import main
from kfpbench.errors import ParameterError, StoreError
from kfpbench.publish.collect import collect, merge_reports
from kfpbench.publish.gather import gather
from kfpbench.store.run_folder import RunFolder, load_run


def with_times(record, **times):
    return replace(record, **times)


def test_parts_of_one_suite_become_one_run(tmp_path) -> None:
    records = [make_cell("x"), make_cell("y", 2.0), make_cell("z", 3.0)]
    plan = [record.cell for record in records]
    a, b = make_run(tmp_path / "a", [records[2]], plan=plan), make_run(tmp_path / "b", records[:2], plan=plan)
    made = collect([a, b], tmp_path / "all")
    folder = RunFolder.open(tmp_path / "all")
    assert [record.label for record in folder.records()] == ["x", "y", "z"]  # the order of the plan
    assert [record.details["origin"]["run"] for record in folder.records()] == ["b", "b", "a"]
    assert folder.read_manifest()["suite"] == RunFolder.open(a).read_manifest()["suite"]
    assert set(load_run(folder.path)["origin"]) == {"a", "b"}
    assert folder.report_path.is_file()
    assert made.gathered.duplicates == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "all", "b"]  # nothing is left behind


def test_of_duplicates_the_best_and_then_the_last_counts(tmp_path) -> None:
    late = "2026-01-03T00:00:00+00:00"
    a = make_run(tmp_path / "a", [make_cell("x", 1.0), make_cell("y", status="failed"), make_cell("z", 1.0)])
    b = make_run(tmp_path / "b", [with_times(make_cell("x", status="failed"), finished=late), make_cell("y", 2.0),
                  with_times(make_cell("z", 1.5), finished=late)])  # fmt: skip
    for order in ([a, b], [b, a]):
        made = gather(order)
        kept = {record.label: (record.status, record.details["origin"]["run"]) for record in made.records}
        assert kept == {"x": ("ok", "a"), "y": ("ok", "b"), "z": ("ok", "b")}
        assert made.duplicates == 3
        assert made.disagree == ("z",)


def test_one_table(tmp_path) -> None:
    collect(
        [make_run(tmp_path / "a", [make_cell("x")]), make_run(tmp_path / "b", [make_cell("y")])],
        tmp_path / "all.parquet",
    )
    import pandas as pd

    frame = pd.read_parquet(tmp_path / "all.parquet")
    assert list(frame.groupby("origin")["label"].unique().map(list)) == [["x"], ["y"]]
    assert len(frame) == 6


def test_files_come_along_and_none_from_outside(tmp_path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    good, bad = make_cell("good"), make_cell("bad")
    a = make_run(
        tmp_path / "a",
        [with_times(good, files={"samples": "samples/g.npz"}), with_times(bad, files={"grid": "../secret.txt"})],
    )
    (a / "samples").mkdir()
    (a / "samples/g.npz").write_bytes(b"rows")
    link = with_times(make_cell("link"), files={"samples": "samples/link.npz"})
    b = make_run(tmp_path / "b", [link])
    (b / "samples").mkdir()
    (b / "samples/link.npz").symlink_to(tmp_path / "secret.txt")
    made = collect([a, b], tmp_path / "all")
    assert made.files_left_out == 2
    assert (tmp_path / "all/samples/g.npz").read_bytes() == b"rows"
    assert not any("secret" in path.read_text(errors="replace") for path in (tmp_path / "all").rglob("*.npz"))
    assert [record.files for record in RunFolder.open(tmp_path / "all").records()] == [
        {"samples": "samples/g.npz"},
        {},
        {},
    ]


def test_refusals(tmp_path) -> None:
    a, b = (
        make_run(tmp_path / "a", [make_cell("x")], score_files={"unet": "1"}),
        make_run(tmp_path / "b", [make_cell("x")], score_files={"unet": "2"}),
    )
    with pytest.raises(ParameterError, match="twice"):
        gather([a, a])
    with pytest.raises(StoreError, match="another file under one name"):
        gather([a, b])
    with pytest.raises(StoreError, match="not free"):
        collect([a], b)
    with pytest.raises(StoreError, match="report of its own"):
        merge_reports([a, b], a)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"n": 50}, "n 50 and not 100"),
        ({"seed": 7}, "seeds [7] and not [0]"),
        ({"data": {"name": "digits", "reference": "validation"}}, "validation"),
        ({"details": {"features": "pca"}}, "frechet in"),
        ({"fingerprint": "f1"}, "content of the data"),
    ],
)
def test_what_cannot_be_compared_has_a_section_of_its_own(tmp_path, other, reason) -> None:
    a = make_run(tmp_path / "a", [make_cell("x"), make_cell("y", 2.0)])
    b = make_run(tmp_path / "b", [make_cell("z", 1.0, **other), make_cell("w", 2.0, **other)])
    made = merge_reports([a, b], tmp_path / "merged")
    text = made.path.read_text(encoding="utf-8").replace("&#34;", '"')
    (found,) = re.findall(r"Not compared with the first section of digits: ([^<]*)", text)
    assert reason in found
    statistics = json.loads((tmp_path / "merged/statistics.json").read_text())["datasets"]
    assert list(statistics) == ["digits", "digits, apart 1"]
    cells = {name: json.dumps(part) for name, part in statistics.items()}
    assert '"z"' not in cells["digits"]


def test_comparable_runs_share_a_section_and_times_of_two_machines_are_left_out(tmp_path) -> None:
    other = {"cpu": {"model": "Other", "usable_cores": 9}}
    a, b = (
        make_run(tmp_path / "a", [make_cell("x"), make_cell("y", 2.0)]),
        make_run(tmp_path / "b", [make_cell("z", 3.0)], environment=other),
    )
    text = merge_reports([a, b], tmp_path / "merged").path.read_text(encoding="utf-8")
    assert "Not compared with the first section" not in text
    assert "different machines: their times and memory are left out" in text
    assert "ms / image" not in text.split('id="provenance"')[0].split("<main")[1]


def test_export(tmp_path, capsys) -> None:
    a = make_run(
        tmp_path / "a", [make_cell("x"), make_cell("y", status="failed"), make_cell("z", 2.0, axes={"sampler.rank": 3})]
    )
    main_at(["export", str(a), "--csv", str(tmp_path / "t.csv"), "--json", str(tmp_path / "t.json")])
    rows = list(csv.DictReader((tmp_path / "t.csv").open(encoding="utf-8")))
    assert [(row["label"], row["metric"]) for row in rows[:4]] == [
        ("x", "frechet"), ("x", "seconds_per_image"), ("x", "nfe"), ("y", ""),
    ]  # fmt: skip
    listed = json.loads((tmp_path / "t.json").read_text())
    assert listed[0]["value"] == pytest.approx(float(rows[0]["value"]), rel=1e-12)
    assert listed[3]["metric"] is None
    capsys.readouterr()
    main_at(["export", str(a), "--csv", "-", "--wide"])
    wide = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["label"] for row in wide] == ["x", "y", "z"]
    assert [row["frechet"] for row in wide] == ["2.0", "", "4.0"]
    assert float(wide[0]["frechet.ci_low"]) < 2 < float(wide[0]["frechet.ci_high"])
    assert [row["axis:sampler.rank"] for row in wide] == ["", "", "3"]
    assert "nfe.ci_low" not in wide[0]


def main_at(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def test_the_command_line(tmp_path, capsys) -> None:
    a, b = str(make_run(tmp_path / "a", [make_cell("x")])), str(make_run(tmp_path / "b", [make_cell("y")]))
    main_at(["collect", a, b, "--out", str(tmp_path / "all")])
    assert "2 cells of 2 runs" in capsys.readouterr().out
    main_at(["report", a])
    assert Path(capsys.readouterr().out.strip()) == Path(a) / "report.html"
    for arguments in (["report", a, b], ["export", a], ["collect", a, "--out", b]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
