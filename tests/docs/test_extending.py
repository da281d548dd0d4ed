"""The components in docs/extending keep their contracts, run in their suites, and their planted defects are named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from kfpbench import registry
from kfpbench.cli import main
from kfpbench.store.run_folder import RunFolder
from kfpbench.testing.__main__ import main as check

PAGES = Path(__file__).parents[2] / "docs" / "extending"
KIND = {
    "dataset": "datasets",
    "process": "processes",
    "score": "scores",
    "kernel": "kernels",
    "backend": "backends",
    "eigensolver": "eigensolvers",
    "sampler": "samplers",
    "features": "features",
    "metric": "metrics",
}
# page: what is altered in its code, as its text says
DEFECTS = {
    "dataset": ("np.random.SeedSequence(self.seed).spawn(3)", "[self.seed] * 3"),
    "process": ("return math.pi * math.tan", "return 0.5 * math.pi * math.tan"),
    "score": ("torch.cdist(x, alpha * self.rows", "torch.cdist(x, self.rows"),
    "kernel": ("value * value * (-rate)", "value * value * rate"),
    "backend": (
        "return WideMatrix(generator_block(kernel, *wide, diffusion)",
        "x, c, drift = wide\n        return WideMatrix(generator_block(kernel, x, c, 0.0 * drift, diffusion)",
    ),
    "eigensolver": ("return torch.tensor(chosen)", "return torch.tensor(chosen[:1])"),
    "sampler": (
        "process = self.problem.process\n        for t",
        "process, x = self.problem.process, x - x.mean(0)\n        for t",
    ),
    "features": ("{self.factor!r}-{self.seed}/1", "{self.factor!r}/1"),
    "metric": ('{"gaussian_mmd": "lower"}', '{"gaussian_mmd": "higher"}'),
}
every_page = pytest.mark.parametrize("page", KIND)


def text(page: str) -> str:
    return (PAGES / f"{page}.md").read_text(encoding="utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text(page), re.DOTALL)


@pytest.fixture(autouse=True)
def _own_registrations(monkeypatch):
    monkeypatch.setattr(registry, "_local", {})


@pytest.fixture
def folder(page, tmp_path):
    """The page's component and suite, each in the file that the page names."""
    (suite,) = blocks(page, "yaml")
    (tmp_path / "component.py").write_text("\n".join(blocks(page, "python")), encoding="utf-8")
    (tmp_path / "suite.yaml").write_text(suite, encoding="utf-8")
    return tmp_path


def status_of(*arguments: str) -> int:
    """Exit code of the command line, run in this process."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def test_every_kind_has_a_page():
    assert set(KIND.values()) == set(registry.KINDS)
    assert {path.stem for path in PAGES.glob("*.md")} == {*KIND, "README"}


@every_page
def test_the_component_keeps_its_contract(page, folder, capsys):
    assert f"python -m kfpbench.testing {KIND[page]} --plugin component.py" in text(page)
    status = check([KIND[page], "--plugin", str(folder / "component.py")])
    shown = capsys.readouterr().out
    assert status == 0, shown
    assert " 0 failed" in shown


@every_page
def test_a_mistake_is_named_as_the_page_says(page, folder, capsys):
    before, after = DEFECTS[page]
    code = (folder / "component.py").read_text(encoding="utf-8")
    assert code.count(before) == 1
    (folder / "component.py").write_text(code.replace(before, after), encoding="utf-8")
    assert check([KIND[page], "--plugin", str(folder / "component.py")]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    promised = re.findall(r"`(\w+(?:\[\w+\])? failed[^`]*)`", text(page))
    assert promised, "the page does not say what is printed"
    for words in promised:
        assert " ".join(words.split()) in shown


@every_page
def test_the_suite_runs(page, folder, capsys):
    suite, out = str(folder / "suite.yaml"), folder / "run"
    assert status_of("run", suite, "--out", str(out)) == 2  # a suite from elsewhere runs no code of its own
    assert "--allow-plugins" in capsys.readouterr().err
    assert status_of("run", suite, "--allow-plugins", "--out", str(out)) == 0
    records = RunFolder.open(out).records()
    assert records
    assert [record.status for record in records] == ["ok"] * len(records)
    name = re.search(r'kfpbench\.register\("\w+", "(\w+)"\)', text(page)).group(1)
    assert name in (out / "manifest.json").read_text(encoding="utf-8")


@every_page
def test_a_package_registers_it_by_an_entry_point(page, monkeypatch, tmp_path):
    """The lines of the page's pyproject.toml, as an installer writes them."""
    code, (toml,) = "\n".join(blocks(page, "python")), blocks(page, "toml")
    ((group, ((name, target),)),) = [
        (group, tuple(lines.items())) for group, lines in tomllib.loads(toml)["project"]["entry-points"].items()
    ]
    assert group == f"kfpbench.{KIND[page]}"
    module = target.partition(":")[0].split(".")[-1]
    (tmp_path / f"packed_{page}").mkdir()
    undecorated = re.sub(r"@kfpbench\.register\(.*\)\n", "", code)
    (tmp_path / f"packed_{page}" / f"{module}.py").write_text(undecorated, encoding="utf-8")
    info = tmp_path / f"packed_{page}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: packed-{page}\nVersion: 1.0\n", encoding="utf-8")
    line = f"{name} = {target.replace('my_package', f'packed_{page}')}"
    (info / "entry_points.txt").write_text(f"[{group}]\n{line}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(registry, "_installed", {})
    registry._all_entry_points.cache_clear()
    try:
        entry = registry.find(KIND[page], name)
        assert entry.origin == f"packed-{page} 1.0"
        assert entry.load().__name__ == target.partition(":")[2]
    finally:
        registry._all_entry_points.cache_clear()


def test_the_test_of_the_shared_page_runs():
    (code,) = blocks("README", "python")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    import kfpbench.testing

    for case in kfpbench.testing.cases("kernels", names["RBF"]):
        for each in kfpbench.testing.checks("kernels"):
            names["test_contract"](case, each)
