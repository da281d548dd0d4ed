from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import kfpbench
from kfpbench import registry
from kfpbench.errors import PluginError, UnknownComponentError
from kfpbench.protocols import KINDS

PLUGIN = """
import kfpbench

@kfpbench.register("kernels", "{name}")
class Mine:
    version = {version}
"""


@pytest.fixture(autouse=True)
def _registrations_are_undone() -> Iterator[None]:
    before = dict(registry._local)
    yield
    registry._local.clear()
    registry._local.update(before)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch):
    """Pretend that distributions are installed which bring these (distribution, name, target) kernels."""

    def pretend(*brought: tuple[str, str, str]) -> None:
        points = list(registry._all_entry_points())
        for distribution, name, target in brought:
            point = metadata.EntryPoint(name, target, "kfpbench.kernels")
            points.append(point._for(SimpleNamespace(name=distribution, version="1.0")))
        monkeypatch.setattr(registry, "_all_entry_points", lambda: points)
        monkeypatch.setattr(registry, "_installed", {})

    return pretend


def write(folder: Path, name: str = "mine", version: int = 1, file: str = "plugin.py") -> Path:
    path = folder / file
    path.write_text(PLUGIN.format(name=name, version=version))
    return path


def test_an_unknown_kind_gives_the_closest() -> None:
    with pytest.raises(PluginError) as caught:
        registry.available("kernel")
    assert caught.value.got == "kernel"
    assert caught.value.remedy == "Did you mean 'kernels'?"
    with pytest.raises(PluginError, match="unknown kind"):
        kfpbench.register("kernel", "x")


def test_an_unknown_name_gives_the_closest() -> None:
    with pytest.raises(UnknownComponentError) as caught:
        registry.find("samplers", "kopman")
    assert caught.value.remedy == "Did you mean 'koopman'?"
    assert "pf_ode_heun" in str(caught.value)


def test_a_name_like_no_other_points_at_the_list() -> None:
    with pytest.raises(UnknownComponentError, match="kfpbench ls kernels"):
        registry.find("kernels", "0000000")


@pytest.mark.parametrize("kind", KINDS)
def test_everything_that_is_installed_loads(kind: str) -> None:
    entries = registry.available(kind)
    assert entries
    assert list(entries) == sorted(entries)
    for name, entry in entries.items():
        component = entry.load()
        assert (entry.kind, entry.name) == (kind, name)
        assert f"{component.__module__}:{component.__qualname__}" == entry.target
        assert entry.origin.startswith("kfpbench ")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("no_such_module_anywhere:Kernel", "ModuleNotFoundError"),
        ("kfpbench.kernels.rbf:NoSuchClass", "AttributeError"),
        ("kfpbench.kernels.rbf:math", "is not a class"),
    ],
)
def test_a_broken_entry_point_names_itself_and_harms_no_other(install, target: str, said: str) -> None:
    install(("stranger", "broken", target))
    assert "broken" in registry.available("kernels")  # listing imports nothing
    with pytest.raises(PluginError) as caught:
        registry.find("kernels", "broken").load()
    message = str(caught.value)
    assert "'broken'" in message
    assert "stranger 1.0" in message
    assert said in message
    assert registry.find("kernels", "rbf").load().__name__ == "RBF"


def test_a_module_that_fails_on_import_names_itself(install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kfpbench_test_broken_module.py").write_text("raise ZeroDivisionError('at import')\n")
    monkeypatch.syspath_prepend(tmp_path)
    install(("stranger", "broken", "kfpbench_test_broken_module:Kernel"))
    with pytest.raises(PluginError, match=r"'broken' from stranger 1\.0 .*ZeroDivisionError: at import") as caught:
        registry.find("kernels", "broken").load()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_two_distributions_under_one_name_are_both_refused_and_no_other_is(install) -> None:
    install(("one", "same", "kfpbench.kernels.rbf:RBF"), ("two", "same", "other:Kernel"))
    with pytest.raises(PluginError) as caught:
        registry.find("kernels", "same").load()
    assert "one 1.0 and two 1.0" in str(caught.value)
    assert "Uninstall one of them" in str(caught.value)
    assert registry.find("kernels", "rbf").load().__name__ == "RBF"


def test_a_stranger_cannot_take_the_place_of_ours(install) -> None:
    install(("stranger", "rbf", "stranger:RBF"))
    with pytest.raises(PluginError, match=r"kfpbench .* and stranger 1\.0"):
        registry.find("kernels", "rbf").load()


def test_the_same_target_twice_is_no_conflict(install) -> None:
    install(("again", "rbf", registry.find("kernels", "rbf").target))
    assert registry.find("kernels", "rbf").load().__name__ == "RBF"


def test_a_plugin_file_registers_its_components(tmp_path: Path) -> None:
    path = write(tmp_path)
    registry.load_plugin_file(path)
    entry = registry.find("kernels", "mine")
    assert entry.origin == str(path.resolve())
    assert entry.load().version == 1
    assert "mine" not in registry.available("samplers")


def test_loading_a_file_again_replaces_what_it_brought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)  # stale bytecode of the same size and second does not count
    registry.load_plugin_file(write(tmp_path))
    registry.load_plugin_file(write(tmp_path, version=2))
    assert registry.find("kernels", "mine").load().version == 2
    registry.load_plugin_file(write(tmp_path, name="renamed", version=3))
    assert registry.find("kernels", "renamed").load().version == 3
    assert "mine" not in registry.available("kernels")
    assert [path.name for path in tmp_path.iterdir()] == ["plugin.py"]


def test_two_files_with_one_name_are_refused(tmp_path: Path) -> None:
    first, second = write(tmp_path), write(tmp_path, version=2, file="second.py")
    registry.load_plugin_file(first)
    with pytest.raises(PluginError, match="already has a component named 'mine'") as caught:
        registry.load_plugin_file(second)
    assert str(first.resolve()) in caught.value.what
    assert caught.value.where == str(second.resolve())
    assert registry.find("kernels", "mine").load().version == 1


def test_a_file_may_not_take_an_installed_name(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="already has a component named 'rbf'"):
        registry.load_plugin_file(write(tmp_path, name="rbf"))
    assert registry.find("kernels", "rbf").load().__name__ == "RBF"


def test_one_file_may_not_register_a_name_twice(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + PLUGIN.format(name="mine", version=2))
    with pytest.raises(PluginError, match="already has a component named 'mine'"):
        registry.load_plugin_file(path)
    assert "mine" not in registry.available("kernels")


def test_a_file_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text() + "\nraise ValueError('half way')\n")
    with pytest.raises(PluginError, match="ValueError: half way") as caught:
        registry.load_plugin_file(path)
    assert caught.value.where == str(path.resolve())
    assert "mine" not in registry.available("kernels")
    registry.load_plugin_file(write(tmp_path, file="other.py"))  # the name is free


def test_a_file_that_fails_when_loaded_again_leaves_its_first_version(tmp_path: Path) -> None:
    registry.load_plugin_file(write(tmp_path))
    path = write(tmp_path, version=2)
    path.write_text(path.read_text() + "\nraise ValueError('half way')\n")
    with pytest.raises(PluginError, match="half way"):
        registry.load_plugin_file(path)
    assert registry.find("kernels", "mine").load().version == 1


@pytest.mark.parametrize("name", ["absent.py", "notes.txt"])
def test_what_is_no_python_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("import kfpbench\n")
    with pytest.raises(PluginError, match=r"not found|not a Python file"):
        registry.load_plugin_file(tmp_path / name)


def test_outside_a_file_a_class_may_be_defined_again() -> None:
    for version in (1, 2):
        component = kfpbench.register("kernels", "from_a_notebook")(type("Cell", (), {"version": version}))
        assert registry.find("kernels", "from_a_notebook").load() is component


def test_resolve_builds_names_and_passes_objects() -> None:
    assert type(registry.resolve("kernels", "rbf")).__name__ == "RBF"
    ready = object()
    assert registry.resolve("kernels", ready) is ready
