"""A suite, or a run folder, from a stranger: it runs no code, reads no file outside its folder but the data it names,
and what it says reaches neither the page nor the terminal as anything but text.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from kfpbench import registry
from kfpbench.cli import main
from kfpbench.errors import SuiteError
from kfpbench.store.run_folder import RunFolder
from kfpbench.suite import components
from kfpbench.suite.load import load_suite, suite_from_mapping

SUITE: dict[str, Any] = {
    "name": "strange",
    "data": {"name": "gmm_ring", "train": 200, "validation": 50, "test": 100},
    "score": "mixture",
    "process": {"name": "ve", "sigma_min": 0.05, "sigma_max": 10.0},
    "samplers": ["gaussian"],
    "metrics": ["energy_distance"],
    "n_samples": 20,
    "batch_size": 20,
    "latency_repeats": 1,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the suite, with a plugin that leaves a trace when it is run, and a file beyond the folder."""
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside.yaml").write_text("seed: 1\n")
    (inside / "plugin.py").write_text("from pathlib import Path\nPath(__file__).with_name('trace').touch()\n")
    stand_ins = dict(registry._local)
    registry._local.clear()  # the components that are installed
    monkeypatch.setattr(components, "SPECTRUM_TARGET", "kfpbench.eigensolvers.spectrum_task:SpectrumTask")
    monkeypatch.chdir(inside)
    yield inside
    registry._local.update(stand_ins)
    assert not (inside / "trace").exists(), "the plugin was run"


def write(path: str = "suite.yaml", /, **changes: Any) -> Path:
    Path(path).write_text(json.dumps({**SUITE, **changes}))
    return Path(path)


def call(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


# -- code -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", [["validate"], ["run"], ["run", "--dry-run"], ["spectrum"]])
def test_no_verb_runs_a_plugin_unasked(verb: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call([*verb, str(write(plugins=["plugin.py"]))], capsys)
    assert (code, out) == (2, "")
    assert "--allow-plugins" in err


@pytest.mark.parametrize(
    "changes",
    [
        {"include": ["part.yaml"]},  # an included file names the plugin
        {"grid": {"plugins": [["plugin.py"]]}},
        {"grid": {"include": [["part.yaml"]]}},
        {"samplers": [{"name": "plugin:trace"}]},
        {"samplers": [{"name": "os:system"}]},
        {"data": {"name": "../inside/plugin.py"}},
        {"samplers": ["gaussian"], "metrics": [{"name": "frechet", "features": "plugin"}]},
    ],
)
def test_no_way_around_it(changes: dict[str, Any]) -> None:
    Path("part.yaml").write_text("plugins: [plugin.py]\n")
    with pytest.raises(SuiteError):
        load_suite(write(**changes))


def test_an_override_is_no_way_around_it(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(["validate", str(write()), "--set", "plugins=[plugin.py]"], capsys)
    assert (code, out) == (2, "")


def test_a_mapping_from_a_stranger_needs_consent_too() -> None:
    with pytest.raises(SuiteError, match="allow_plugins"):
        suite_from_mapping({**SUITE, "plugins": ["plugin.py"]}, base_dir=".")


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.system ['touch trace']\n",
        "name: !!python/name:os.system ''\n",
        "name: !!python/object/new:subprocess.Popen [['touch', 'trace']]\n",
        "!!python/module:plugin x: 1\n",
        "%TAG !p! tag:yaml.org,2002:python/\n---\nname: !p!object/apply:os.system ['touch trace']\n",
        "name: !include ../outside.yaml\n",
        "name: !ENV HOME\n",
    ],
)
def test_tags_build_nothing(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("suite.yaml").write_text(text)
    code, out, err = call(["validate", "suite.yaml"], capsys)
    assert (code, out) == (2, "")
    assert err.startswith("error: suite.yaml:")
    assert "Traceback" not in err


class Trace:
    """Pickles as a program that leaves a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("trace"),)


@pytest.mark.parametrize("name", ["weights.pt", "weights.pth", "weights.pkl", "weights.bin", "weights.safetensors"])
def test_weights_that_are_programs_fail_their_cell(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    if name.endswith((".pt", ".pth")):
        torch.save({"network": Trace()}, name)
    else:
        Path(name).write_bytes(pickle.dumps({"network": Trace()}))
    code, out, _ = call(
        ["run", str(write(data="digits", score={"name": "edm_state_dict", "path": name})), "--out", "out"], capsys
    )
    assert code == 1
    assert "failed" in out
    assert "Traceback" not in out


def test_data_that_are_programs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    batches = Path("cifar-10-batches-py")
    batches.mkdir()
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        (batches / name).write_bytes(pickle.dumps(Trace()))
    path = write(data={"name": "cifar10", "data_dir": str(Path.cwd())}, score="gaussian")
    code, out, _ = call(["run", str(path), "--out", "out"], capsys)
    assert code == 1
    assert "a global that a data file has no use for" in out


# -- paths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "../outside.yaml",
        "sub/../../outside.yaml",
        "./.././outside.yaml",
        "/etc/passwd",
        "file:///etc/passwd",
        "~/outside.yaml",
        "link",
        "link_to_link",
        "folder/outside.yaml",
        "/dev/zero",
        "/proc/self/environ",
        "pipe",
        ".",
        "a\0b",
    ],
)
def test_an_include_reads_nothing_outside(name: str) -> None:
    Path("sub").mkdir()
    Path("link").symlink_to("../outside.yaml")
    Path("link_to_link").symlink_to("link")
    Path("folder").symlink_to("..")
    os.mkfifo("pipe")
    with pytest.raises(SuiteError) as caught:
        load_suite(write(include=[name]))
    assert any(word in str(caught.value) for word in ("may not leave", "not exist", "is a path", "this is a folder"))


def test_an_include_of_an_include_starts_from_the_same_folder() -> None:
    Path("sub").mkdir()
    Path("sub/part.yaml").write_text("include: [../../outside.yaml]\n")
    with pytest.raises(SuiteError, match="may not leave"):
        load_suite(write(include=["sub/part.yaml"]))


def test_a_file_that_is_too_large_is_not_read() -> None:
    with Path("large.yaml").open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room on the disk, and would take a terabyte in memory
    with pytest.raises(SuiteError, match="too large"):
        load_suite(write(include=["large.yaml"]))


@pytest.mark.parametrize("name", ["../strange", "/tmp/strange", "..", "a/b", "a\\b", "", "a\nb", "a\0b"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(SuiteError):
        load_suite(write(name=name))


@pytest.mark.parametrize("member", ["../trace", "/tmp/kfpbench_trace", "cifar-10-batches-bin/../../trace", "link"])
def test_members_of_an_archive_are_written_nowhere(member: str, capsys: pytest.CaptureFixture[str]) -> None:
    with tarfile.open("cifar-10-binary.tar", "w") as archive:
        entry = tarfile.TarInfo(member)
        if member == "link":
            entry.type, entry.linkname = tarfile.SYMTYPE, "../outside.yaml"
        else:
            entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    before = sorted(path for path in Path().resolve().parent.rglob("*") if path.is_file())
    path = write(data={"name": "cifar10", "data_dir": str(Path.cwd())}, score="gaussian")
    code, out, _ = call(["run", str(path), "--out", "out"], capsys)
    assert code == 1
    assert "Do not trust this file" in out
    after = sorted(path for path in Path().resolve().parent.rglob("*") if path.is_file() and "out" not in path.parts)
    assert set(after) - set(before) == {path.resolve()}
    assert not Path("/tmp/kfpbench_trace").exists()


def test_a_report_replaces_links_and_leaves_what_they_lead_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", str(write()), "--out", "out"], capsys)[0] == 0
    victim = Path("victim")
    victim.write_text("precious")
    for name in ("report.html", "results.parquet", "manifest.json"):
        content = Path("out", name).read_bytes()
        Path("out", name).unlink()
        if name == "manifest.json":
            Path("out", name).write_bytes(content)
        else:
            Path("out", name).symlink_to(victim.resolve())
    assert call(["report", "out"], capsys)[0] == 0
    assert call(["run", str(write()), "--out", "out"], capsys)[0] == 0
    assert victim.read_text() == "precious"
    assert not Path("out/report.html").is_symlink()


@pytest.mark.filterwarnings("ignore:.*half-written last line")
def test_a_log_that_is_a_link_is_not_written_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", str(write()), "--out", "out"], capsys)[0] == 0
    victim = Path("victim").resolve()
    victim.write_text("precious, without a line end")  # which a log would take for half a record, and cut off
    Path("out/cells.jsonl").unlink()
    Path("out/cells.jsonl").symlink_to(victim)
    code, _, err = call(["run", str(write()), "--out", "out"], capsys)
    assert code == 2
    assert "the log of cells is a link" in err
    assert victim.read_text() == "precious, without a line end"


# -- text -----------------------------------------------------------------------------------------------------------

EVIL = "</script></style></textarea><script>alert(1)</script><img src=x onerror=alert(1)>\"'`{{7*7}}${7*7}\x1b]0;x\x07"


class Tags(HTMLParser):
    """What a browser would make of a page: tags that run or load something, and attributes that do."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}
        self.active: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.counts[tag] = self.counts.get(tag, 0) + 1
        for name, value in attrs:
            local = (value or "").startswith(("#", "data:"))
            if name.startswith("on") or (name in ("src", "href", "action", "srcdoc", "data") and not local):
                self.active.append((tag, name, str(value)))


KEPT = ("cell", "kind", "status", "schema_version", "plan", "better", "started", "finished", "metric")


def spoiled(value: Any, key: str = "") -> Any:
    """Every text of a record or manifest made evil, but what a reader checks: kinds, states, directions, times."""
    if isinstance(value, dict):
        return {name: spoiled(child, name) for name, child in value.items()}
    if isinstance(value, list):
        return [spoiled(child, key) for child in value]
    number = value in ("nan", "inf", "-inf", "NaN", "Infinity", "-Infinity")  # as JSON tags them
    return value + EVIL if isinstance(value, str) and key not in KEPT and not number else value


@pytest.fixture
def strange_run(capsys: pytest.CaptureFixture[str]) -> RunFolder:
    """A run whose records and manifest a stranger has written."""
    own = {"data": "ornstein_uhlenbeck", "score": None, "process": None, "metrics": [], "samplers": []}
    two = {"samplers": ["gaussian", {"name": "pf_ode_heun", "steps": 2}], "description": "plain"}
    spectrum = [{"n_eigs": 3, "operator": {"points": 50}}]
    grid = {"samplers.pf_ode_heun.steps": [1, 2]}
    for arguments, folder in ((two | {"grid": grid}, "out"), (own | {"spectrum": spectrum}, "other")):
        code, _, err = call(["run", str(write(**arguments)), "--out", folder], capsys)
        assert not err
        assert code == 0
    run = RunFolder.open("out")
    lines = run.log.path.read_text().splitlines() + RunFolder.open("other").log.path.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    manifest = run.read_manifest()
    manifest["plan"] = [record["cell"] for record in records]
    failed = {**records[0], "cell": "f" * 16, "status": "failed", "reason": "x", "traceback": "y", "measurements": []}
    manifest["plan"].append("f" * 16)
    for record in records[:-1]:  # samples, not the spectrum: names that the suite's author chooses
        record["measurements"].append({"metric": f"evil{EVIL}", "value": 1.0, "better": "lower"})
        record["axes"][f"a.{EVIL}"] = EVIL
    run.log.path.write_text("".join(json.dumps(spoiled(record)) + "\n" for record in [*records, failed]))
    run.write_manifest(spoiled(manifest))
    return run


def test_the_page_escapes_every_name(strange_run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before = Tags(strange_run.report_path.read_text())
    code, _, err = call(["report", "out"], capsys)
    assert not err
    assert code == 0
    text = strange_run.report_path.read_text()
    after = Tags(text)
    assert after.active == before.active == []
    assert after.counts["script"] == before.counts["script"]
    assert "alert(1)" in text  # it is shown, as text
    assert "49" not in text.partition("<h1")[2].partition("</h1>")[0]  # no template was evaluated
    assert "<img src=x" not in text
    payload = re.search(r'id="payload">(.*?)</script>', text, re.DOTALL)
    assert payload is not None
    figures = json.loads(payload.group(1))["figures"]
    assert "alert(1)" in json.dumps(figures)
    assert "<img" not in json.dumps(figures)  # plotly reads a small HTML in its labels


def test_the_terminal_gets_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    name = "a\x1b[2J\x07\x9b31m.yaml"
    Path(name).write_text("no_such_key: 1\n")
    grid = {"data.train": [200, 201], "description": ["\x1b[2J"]}
    for changes in ({"include": [name]}, {"grid": grid}, {"name": "x\x1b[2J"}, {"samplers": ["\x1b[2J"]}):
        code, out, err = call(["validate", str(write(**changes))], capsys)
        assert code == 2
        assert all(one.isprintable() or one == "\n" for one in out + err)


def test_values_of_axes_reach_the_terminal_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    grid = {"data.data_dir": ["/no\x1b[2J/one", "/no\x1b]0;x\x07/two"]}
    path = write(data={"name": "cifar10"}, score="gaussian", grid=grid)
    for arguments in (["validate"], ["run", "--dry-run"], ["run", "--out", "out", "-v", "--log-file", "log"]):
        code, out, err = call([arguments[0], str(path), *arguments[1:]], capsys)
        assert code in (0, 1)
        assert all(one.isprintable() or one == "\n" for one in out + err)
    assert all(one.isprintable() or one == "\n" for one in Path("log").read_text())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_offers_plain_words_alone(shell: str) -> None:
    evil = ["$(touch trace)", "`touch trace`", "a;touch trace", "'|touch trace'", 'x"y', "a b", "-rf", "ok"]
    write(samplers=[{"name": "gaussian", "label": label} for label in evil], plugins=["plugin.py"])
    for name in ("$(touch trace).yaml", "a;b.yaml", "x y.yaml", "fine.yaml"):
        Path(name).write_text("")
    for words in (["kfpbench", "run", ""], ["kfpbench", "run", "suite.yaml", "--select", ""]):
        environment = {
            **os.environ,
            "_KFPBENCH_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
            "_TYPER_COMPLETE_ARGS": " ".join(words),
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        command = [sys.executable, "-m", "kfpbench.cli"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert "touch" not in done.stdout
        assert ";" not in done.stdout
        assert ("label=ok" if "--select" in words else "fine.yaml") in done.stdout
