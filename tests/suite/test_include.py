from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kfpbench.errors import SuiteError
from kfpbench.suite.load import load_suite
from kfpbench.suite.loaded import Suite

Load = Callable[..., Suite]
Refused = Callable[..., list[str]]
Write = Callable[..., Path]


def test_includes_are_merged_underneath(load: Load, write: Write, base: str) -> None:
    write("n_samples: 5\nbatch_size: 5\nbudget: {seconds: 1, memory_gib: 1}\nmetrics: [a, b]\n", "first.yaml")
    write("batch_size: 6\nlatency_repeats: 6\n", "parts/second.yaml")
    text = base + "include: [first.yaml, parts/second.yaml]\nlatency_repeats: 7\nbudget: {seconds: 2}\n"
    suite = load(text)
    spec = suite.cells[0].spec
    assert (spec["n_samples"], spec["batch_size"], spec["latency_repeats"]) == (5, 6, 7)
    assert spec["budget"] == {"seconds": 2.0, "memory_gib": 1.0}  # mappings merge
    assert [metric["name"] for metric in spec["metrics"]] == ["distance"]  # lists do not
    assert suite.text == text
    assert sorted(Path(name).name for name in suite.included) == ["first.yaml", "second.yaml"]


def test_includes_of_includes_are_found_from_their_own_file(load: Load, write: Write, base: str) -> None:
    write("include: [deeper/b.yaml]\n", "parts/a.yaml")
    write("include: [../../c.yaml]\nseed: 3\n", "parts/deeper/b.yaml")
    write("seed: 4\nn_samples: 9\n", "c.yaml")
    suite = load(base + "include: [parts/a.yaml]\n")
    assert (suite.cells[0].seed, suite.cells[0].spec["n_samples"]) == (3, 9)


def test_problems_are_located_in_the_included_file(refused: Refused, write: Write, base: str) -> None:
    write("n_samples: 10\nbatch_size: 0\nbudgt: {}\n", "parts/a.yaml")
    first, second = refused(base + "include: [parts/a.yaml]\n")
    assert first.startswith("parts/a.yaml:2:13: batch_size cannot have this value; got 0")
    assert second.startswith("parts/a.yaml:3:1: unknown key; got 'budgt'")


def test_syntax_errors_are_located_in_the_included_file(refused: Refused, write: Write, base: str) -> None:
    write("seed: 1\nseed: 2\n", "a.yaml")
    [problem] = refused(base + "include: [a.yaml]\n")
    assert problem.startswith("a.yaml:2:1: duplicate key")
    write("- 1\n", "a.yaml")
    [problem] = refused(base + "include: [a.yaml]\n")
    assert problem.startswith("a.yaml:1:1: a suite is a mapping")


def test_plugins_are_found_from_the_file_that_names_them(load: Load, write: Write, base: str) -> None:
    stand_in = "class K:\n    def __getattr__(self, name):\n        raise AttributeError(name)\n"
    write(f"import kfpbench\n@kfpbench.register('kernels', 'from_part')\n{stand_in}", "parts/plugin.py")
    write("plugins: [plugin.py]\n", "parts/a.yaml")
    text = base.replace("eta: 0.5", "eta: 0.5\n    kernel: from_part") + "include: [parts/a.yaml]\n"
    assert load(text, allow_plugins=True).cells[0].spec["sampler"]["kernel"] == {"name": "from_part"}


@pytest.mark.parametrize("name", ["../outside.yaml", "link/outside.yaml", "link.yaml"])
def test_an_include_may_not_leave_the_folder(tmp_path: Path, base: str, name: str) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "outside.yaml").write_text("seed: 1\n")
    (tmp_path / "outside.yaml").write_text("seed: 1\n")
    (inside / "link").symlink_to(outside)
    (inside / "link.yaml").symlink_to(outside / "outside.yaml")
    suite = inside / "suite.yaml"
    suite.write_text(base + f"include:\n  - {name}\n")
    with pytest.raises(SuiteError) as caught:
        load_suite(suite)
    assert caught.value.where == f"{suite}:12:5"
    assert "may not leave the folder" in str(caught.value)


def test_an_absolute_include_may_not_leave_either(refused: Refused, base: str) -> None:
    assert "may not leave" in refused(base + "include: [/etc/hostname]\n")[0]


def test_cycles(refused: Refused, write: Write, base: str) -> None:
    write("include: [b.yaml]\n", "a.yaml")
    write("seed: 1\ninclude:\n  - a.yaml\n", "b.yaml")
    [problem] = refused(base + "include: [a.yaml]\n")
    assert problem == "b.yaml:3:5: files include each other in a circle; got 'a.yaml'"
    [problem] = refused(base + "include: [suite.yaml]\n")
    assert problem == "suite.yaml:11:11: files include each other in a circle; got 'suite.yaml'"


def test_a_file_may_be_included_twice_but_not_without_end(refused: Refused, write: Write, base: str) -> None:
    write("seed: 1\n", "leaf0.yaml")
    for level in range(1, 12):
        write(f"include: [leaf{level - 1}.yaml, leaf{level - 1}.yaml]\n", f"leaf{level}.yaml")
    [problem] = refused(base + "include: [leaf11.yaml]\n")
    assert "too many included files" in problem


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (
            "[none.yaml]",
            "suite.yaml:11:11: the included file does not exist; got 'none.yaml'. Check the path.",
        ),
        ("[3]", "suite.yaml:11:11: an include is a path; got 3; allowed: text"),
        ("['']", "suite.yaml:11:11: an include is a path; got ''; allowed: text"),
        ("a.yaml", "suite.yaml:11:10: include cannot have this value; got 'a.yaml'; allowed: a list"),
    ],
)
def test_includes_that_are_none(refused: Refused, base: str, include: str, expected: str) -> None:
    assert refused(base + f"include: {include}\n") == [expected]
