"""Keys: alike in every process and order, other ones for other content; versions that follow the source."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kfpbench import registry
from kfpbench.cache.code_version import class_name, code_version, code_versions
from kfpbench.cache.key import Key
from kfpbench.cache.location import cache_folder, parse_age, parse_size
from kfpbench.errors import ParameterError
from kfpbench.registry import find, load_plugin_file
from kfpbench.samplers.koopman import Koopman

PLUGIN = """
import kfpbench.errors
import kfpbench

@kfpbench.register("features", "cache_test_features")
class Doubled:
    version = "1"
    factor = {factor}

    def fit(self, dataset):
        return self

    def transform(self, rows):
        return rows.astype("float64") * self.factor
"""

IN_A_NEW_PROCESS = """
from kfpbench.cache.code_version import code_versions
from kfpbench.cache.key import Key
from kfpbench.samplers.koopman import Koopman
parts = {"b": [1, 2.5], "a": {"y": None, "x": "text"}, "code": code_versions([Koopman()])}
print(Key("fit", parts).name)
"""


def test_keys_are_alike_in_processes_that_hash_otherwise_and_in_any_order() -> None:
    code = dict(reversed(code_versions([Koopman()]).items()))
    here = Key("fit", {"code": code, "a": {"x": "text", "y": None}, "b": (1, 2.5)}).name
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    there = subprocess.run(
        [sys.executable, "-P", "-c", IN_A_NEW_PROCESS], capture_output=True, text=True, check=True, env=environment
    )
    assert there.stdout.strip() == here


@pytest.mark.parametrize("other", [{"a": 2}, {"a": 1.5}, {"a": "1"}, {"a": None}, {"a": [1]}, {"b": 1}, {"a": True}])
def test_other_content_and_other_kinds_have_other_keys(other: dict) -> None:
    assert Key("fit", other).name != Key("fit", {"a": 1}).name
    assert Key("samples", {"a": 1}).name != Key("fit", {"a": 1}).name


def test_equal_numbers_have_equal_keys() -> None:
    assert Key("fit", {"a": -0.0}).name == Key("fit", {"a": 0.0}).name


def test_what_has_no_canonical_text_is_no_part_of_a_key() -> None:
    with pytest.raises(TypeError, match="cannot hold a set"):
        _ = Key("fit", {"a": {1, 2}}).name


def test_parts_of_a_component_are_versioned_with_it() -> None:
    names = set(code_versions([Koopman()]))
    assert {"kfpbench.samplers.koopman:Koopman", "kfpbench.kernels.rbf:RBF"} <= names
    assert "kfpbench.operators.generator:GeneratorOptions" in names


def _load(path: Path, factor: float) -> type:
    path.write_text(PLUGIN.format(factor=factor))
    load_plugin_file(path)
    return find("features", "cache_test_features").load()


def test_a_changed_plugin_has_another_version_and_the_same_one_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_local", dict(registry._local))  # the plugin is this test's alone
    path = tmp_path / "plugin_of_cache_test.py"
    first = _load(path, 2.0)
    version = code_version(first)
    assert code_version(_load(path, 3.0)) != version
    again = _load(path, 2.0)
    assert code_version(again) == version
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    path.unlink()
    assert class_name(again) == "plugin plugin_of_cache_test:Doubled"


def test_a_helper_that_a_component_imports_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "some_cache_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("from some_cache_plugin import helper\n\nclass Part:\n    pass\n")
    script = "import some_cache_plugin.part as p, kfpbench.cache.code_version as v; print(v.code_version(p.Part))"
    monkeypatch.syspath_prepend(str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    versions = []
    for content in ("a = 1\n", "a = 2\n", "a = 1\n"):
        (package / "helper.py").write_text(content)
        command = [sys.executable, "-B", "-P", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        versions.append(done.stdout)
    assert versions[0] == versions[2] != versions[1]


def test_the_folder_is_that_of_the_variable_or_in_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KFPBENCH_CACHE_DIR", str(tmp_path / "here"))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("KFPBENCH_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "kfpbench" / "results"


def test_sizes_and_ages() -> None:
    assert [parse_size(text) for text in ("0", "12", "1kB", "1KiB", "2 GiB", "1.5MB", "3g")] == [
        0,
        12,
        1000,
        1024,
        2 * 2**30,
        1_500_000,
        3 * 10**9,
    ]
    assert [parse_age(text) for text in ("30d", "12h", "1.5m", "2w")] == [30 * 86400, 12 * 3600, 90, 14 * 86400]
    for text in ("", "GiB", "-1", "1 XB", "nan", "1e9"):
        with pytest.raises(ParameterError):
            parse_size(text)
    with pytest.raises(ParameterError):
        parse_age("5")


def test_the_version_does_not_depend_on_what_is_loaded() -> None:
    tell = """
import sys
for name in sys.argv[1:]:
    __import__(name)
from kfpbench.cache.code_version import code_version
from kfpbench_baselines.gaussian_mixture import GaussianMixture
print(code_version(GaussianMixture))
"""
    path = os.pathsep.join(entry for entry in sys.path if entry)

    def told(*modules: str) -> str:
        command = [sys.executable, "-P", "-c", tell, *modules]
        return subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
        ).stdout

    assert told() == told("kfpbench.executors.worker", "kfpbench.metrics.vendi", "kfpbench.report.html")
