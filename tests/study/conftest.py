"""A planted problem behind the ordinary study code: a sampler that carries x, and a metric that computes f(x)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from kfpbench import registry

PLUGIN = '''
from typing import Annotated, ClassVar
import math, os, time
import torch
from pydantic import Field
from kfpbench import register
from kfpbench.protocols import Measurement


class Fitted:
    def __init__(self, x):
        self.x = x

    def sample(self, noise):
        return noise.normal(0).float()

    def describe(self):
        return {"x": self.x}


@register("samplers", "planted")
class Planted:
    """Carries a point."""

    def __init__(
        self,
        a: Annotated[float, Field(ge=0, le=1)] = 0.5,
        b: Annotated[float, Field(ge=0, le=1)] = 0.5,
        c: Annotated[float, Field(ge=0, le=1)] = 0.5,
        d: Annotated[float, Field(ge=0, le=1)] = 0.5,
        kind: str = "plain",
        extra: float = 0.0,
        sleep: float = 0.0,
        gib: float = 0.0,
    ) -> None:
        self.point = {"a": a, "b": b, "c": c, "d": d, "kind": kind, "extra": extra, "sleep": sleep}
        self.gib = gib

    def fit(self, problem):
        time.sleep(self.point["sleep"])
        if self.point["kind"] == "broken":
            raise ValueError("planted failure")
        if self.point["kind"] == "crash":
            os.kill(os.getpid(), 9)
        return Fitted(self.point)

    def working_memory(self, size):
        return int(self.gib * 2**30)


@register("metrics", "zdt1")
class Zdt1:
    """f1 = a, f2 = g (1 - sqrt(a / g)), g = 1 + 3 (b + c + d): the front is b = c = d = 0 (Zitzler et al., 2000)."""

    outputs: ClassVar[dict[str, str]] = {"f1": "lower", "f2": "lower"}

    def evaluate(self, given):
        x = given.sampler.x
        g = 1 + 3 * (x["b"] + x["c"] + x["d"])
        return [Measurement("f1", x["a"]), Measurement("f2", g * (1 - math.sqrt(x["a"] / g)) + x["extra"])]
'''

SUITE = """
name: planted
plugins: [planted.py]
data: {name: gaussian}
score: {name: gaussian}
process: {name: ve}
samplers: [{name: planted, label: x}]
metrics: [zdt1]
n_samples: 8
batch_size: 8
latency_repeats: 1
study:
  objectives: [f1, f2]
  space:
    samplers.x.a: {low: 0.0, high: 1.0}
    samplers.x.b: {low: 0.0, high: 1.0}
    samplers.x.c: {low: 0.0, high: 1.0}
    samplers.x.d: {low: 0.0, high: 1.0}
  sampler: random
  budget: {trials: 12}
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The suite file of the planted problem; its plugin is forgotten after the test."""
    monkeypatch.setattr(registry, "_local", {})
    (tmp_path / "planted.py").write_text(PLUGIN)
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE)
    return suite


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def postgres(tmp_path: Path):
    """The URL of a private PostgreSQL on loopback, owned by an ordinary user; skipped where there are no binaries."""
    found = [shutil.which("initdb"), *map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    binaries = [Path(one).resolve().parent for one in found if one]
    if not binaries:
        pytest.skip("no initdb on the path nor under /usr/lib/postgresql: the Debian package postgresql is not there")
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'kfpbench[postgres]'")
    folder = Path("/tmp") / f"kfpbench-postgres-{os.getpid()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    as_user = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        import pwd

        names = {one.pw_name: one for one in pwd.getpwall()}
        user = names.get("postgres", names.get("nobody"))
        assert user is not None
        os.chown(folder, user.pw_uid, user.pw_gid)
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    port = free_port()
    data, log = folder / "data", folder / "log"

    def call(*command: str) -> None:
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, timeout=120, **as_user)

    bin_folder = binaries[0]
    call(str(bin_folder / "initdb"), "-D", str(data), "-A", "trust", "-U", "kfpbench", "--no-sync")
    settings = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
    try:
        call(str(bin_folder / "pg_ctl"), "-D", str(data), "-l", str(log), "-o", settings, "-w", "start")
        yield f"postgresql://kfpbench@127.0.0.1:{port}/postgres"
    finally:
        if (data / "postmaster.pid").exists():
            call(str(bin_folder / "pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)
