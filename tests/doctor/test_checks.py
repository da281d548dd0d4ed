"""Each check's judgement on machines that are made up, and its measurement on this one."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest

from kfpbench.doctor import (
    clock,
    control_groups,
    cuda,
    data_sets,
    folders,
    keops,
    memory,
    packages,
    plugins,
    processors,
    python_version,
    torch_build,
    weights,
)
from kfpbench.doctor.checks import CHECKS
from kfpbench.doctor.command import as_lines, examine, exit_code
from kfpbench.doctor.finding import Finding, Scope, ok, problem, warning
from kfpbench.errors import CapabilityError, DataError
from kfpbench.registry import Entry

GIB = 2**30


# -- Python and packages --------------------------------------------------------------------------------------------

PYTHON: dict[str, Any] = {"required": ">=3.11", "bits": 64, "final": True, "free_threaded": False}


@pytest.mark.parametrize(
    ("version", "implementation", "changes", "status"),
    [
        ("3.11.0", "CPython", {}, "ok"),
        ("3.13.2", "CPython", {}, "ok"),
        ("3.10.9", "CPython", {}, "problem"),
        ("3.11.0", "CPython", {"bits": 32}, "problem"),
        ("3.11.0", "CPython", {"required": ""}, "problem"),
        ("3.11.0", "PyPy", {}, "warning"),
        ("3.14.0b1", "CPython", {"final": False}, "warning"),
        ("3.13.0", "CPython", {"free_threaded": True}, "warning"),
    ],
)
def test_python(version: str, implementation: str, changes: dict[str, Any], status: str) -> None:
    finding = python_version.judge(version, implementation, **{**PYTHON, **changes})
    assert finding.status == status
    assert version in finding.found
    assert bool(finding.fix) == (status != "ok")


DECLARED = [
    "torch>=2.6",
    "numpy>=2.0",
    'windows-only>=1; sys_platform == "nowhere"',
    'diffusers>=0.35; extra == "diffusers"',
    'kooplearn<3,>=2.0.3; extra == "peers"',
    'pytest>=8; extra == "dev"',
    'kfpbench[peers]; extra == "dev"',
]


def test_packages() -> None:
    have = {"torch": "2.13.0+cpu", "numpy": "2.4.6", "diffusers": "0.30.0"}
    needed, diffusers, peers = packages.judge(DECLARED, have.get)
    assert (needed.status, needed.found) == ("ok", "all 2 needed packages are there, in versions that are supported")
    assert (diffusers.check, diffusers.status) == ("extra diffusers", "warning")
    assert diffusers.found == "diffusers 0.30.0 is installed, diffusers>=0.35 is supported"
    assert diffusers.fix == "python -m pip install 'kfpbench[diffusers]'"
    assert peers.status == "ok"  # nobody needs an extra
    assert peers.found.startswith("not installed")
    assert "kfpbench[peers]" in peers.found


def test_packages_that_are_missing_or_too_old() -> None:
    [needed, *_] = packages.judge(DECLARED, {"torch": "2.5.1"}.get)
    assert needed.status == "problem"
    assert needed.found == "torch 2.5.1 is installed, torch>=2.6 is supported; numpy is not installed"
    assert needed.fix == "python -m pip install 'torch>=2.6' 'numpy>=2.0'"


# -- torch and CUDA -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "machine", "flags", "status"),
    [
        ("AVX2", "x86_64", ("avx", "avx2"), "ok"),
        ("AVX512", "x86_64", ("avx", "avx2", "avx512f", "amx_bf16"), "ok"),
        ("DEFAULT", "x86_64", ("avx", "avx2"), "warning"),
        ("DEFAULT", "x86_64", ("avx",), "warning"),
        ("DEFAULT", "x86_64", (), "ok"),  # the system does not tell
        ("DEFAULT", "aarch64", ("asimd",), "ok"),
    ],
)
def test_instruction_sets(capability: str, machine: str, flags: tuple[str, ...], status: str) -> None:
    assert torch_build.judge_instructions("2.13.0", capability, machine, flags).status == status


def test_processor_flags(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx avx2 avx512f amx_bf16 avx_vnni\n")
    assert torch_build.processor_flags(cpuinfo) == ("avx", "avx2", "avx512f", "amx_bf16")
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd bf16\n")
    assert torch_build.processor_flags(cpuinfo) == ("asimd", "bf16")
    assert torch_build.processor_flags(tmp_path / "absent") == ()


@pytest.mark.parametrize(("ratio", "says"), [(None, "none"), (0.5, "fast: 2.0"), (1.5, "slow"), (98.7, "99 times")])
def test_bfloat16(ratio: float | None, says: str) -> None:
    finding = torch_build.judge_bfloat16(ratio)
    assert finding.status == "ok"
    assert says in finding.found


def test_bfloat16_is_measured() -> None:
    ratio = torch_build.bfloat16_ratio()
    assert ratio is not None
    assert 0.01 < ratio < 1e5


SEEN = cuda.Probe("2.13.0", None, available=False, message="", driver="", hardware=False, hidden=False)


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({}, "ok", "no NVIDIA GPU, and torch's CPU build"),
        ({"cuda_build": "12.6"}, "ok", "no NVIDIA GPU; torch for CUDA 12.6"),
        ({"driver": "550.54", "hardware": True}, "warning", "CPU build: the GPU is not used"),
        (
            {"driver": "470.1", "hardware": True, "cuda_build": "12.6", "message": "The NVIDIA driver is too old"},
            "problem",
            "cannot use the GPU: The NVIDIA driver is too old",
        ),
        ({"hardware": True, "cuda_build": "12.6"}, "problem", "no NVIDIA driver"),
        ({"driver": "550.54", "hardware": True, "cuda_build": "12.6", "hidden": True}, "ok", "CUDA_VISIBLE_DEVICES"),
        ({"available": True, "cuda_build": "12.6", "driver": "550.54"}, "ok", "H100 (9.0, 80 GiB)"),
        (
            {"available": True, "cuda_build": "11.8", "driver": "550.54", "trial": "cuda:0: no kernel image"},
            "problem",
            "no kernel image (torch is built for sm_50, sm_80)",
        ),
    ],
)
def test_cuda(changes: dict[str, Any], status: str, says: str) -> None:
    devices = (("H100", "9.0", 80.0),) if changes.get("available") else ()
    seen = cuda.Probe(**{**vars(SEEN), "devices": devices, "built_for": ("sm_50", "sm_80"), **changes})
    finding = cuda.judge(seen)
    assert finding.status == status
    assert says in finding.found


# -- processors, memory, clock --------------------------------------------------------------------------------------


def tree(root: Path, **files: str) -> Path:
    """Files of a made-up /proc and /sys; ``__`` stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_limits_of_version_2(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        proc__self__cgroup="0::/pod/box\n",
        sys__fs__cgroup__pod__cpu_dot_max="150000 100000\n",
        sys__fs__cgroup__pod__box__cpu_dot_max="max 100000\n",
        sys__fs__cgroup__pod__memory_dot_max="max\n",
        sys__fs__cgroup__pod__box__memory_dot_max=f"{2 * GIB}\n",
        sys__fs__cgroup__pod__box__memory_dot_current=f"{GIB}\n",
    )
    assert control_groups.processor_limit(root) == 1.5
    assert control_groups.memory_limit(root) == 2 * GIB
    assert control_groups.memory_used(root) == GIB


def test_limits_of_version_1(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        proc__self__cgroup="5:cpu,cpuacct:/box\n4:memory:/on/the/host\n",
        sys__fs__cgroup__cpu__box__cpu_dot_cfs_quota_us="200000\n",
        sys__fs__cgroup__cpu__box__cpu_dot_cfs_period_us="100000\n",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes=f"{3 * GIB}\n",
    )
    assert control_groups.processor_limit(root) == 2.0
    assert control_groups.memory_limit(root) == 3 * GIB  # the path is the host's: the mount's top counts


def test_no_limits(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        proc__self__cgroup="5:cpu:/\n4:memory:/\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_quota_us="-1\n",
        sys__fs__cgroup__cpu__cpu_dot_cfs_period_us="100000\n",
        sys__fs__cgroup__memory__memory_dot_limit_in_bytes="9223372036854771712\n",
    )
    assert control_groups.processor_limit(root) is None
    assert control_groups.memory_limit(root) is None
    assert control_groups.processor_limit(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("threads", "usable", "limit", "settings", "status", "fix"),
    [
        (2, 2, None, {}, "ok", ""),
        (16, 16, 2.0, {}, "warning", "OMP_NUM_THREADS=2"),
        (16, 16, 0.5, {}, "warning", "OMP_NUM_THREADS=1"),
        (1, 16, 0.5, {}, "ok", ""),
        (8, 4, None, {"OMP_NUM_THREADS": "8"}, "warning", "OMP_NUM_THREADS=4"),
        (2, 2, None, {"OMP_WAIT_POLICY": "active"}, "warning", "OMP_WAIT_POLICY"),
        (2, 2, None, {"OMP_WAIT_POLICY": "PASSIVE"}, "ok", ""),
    ],
)
def test_threads(
    threads: int, usable: int, limit: float | None, settings: dict[str, str], status: str, fix: str
) -> None:
    finding = processors.judge_threads(threads, usable, limit, settings)
    assert finding.status == status
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("available", "limit", "used", "status", "says"),
    [
        (20 * GIB, None, None, "ok", "20.0 GiB free of 32.0"),
        (20 * GIB, 8 * GIB, 2 * GIB, "ok", "6.0 GiB free of 32.0; the container allows 8.0"),
        (20 * GIB, 8 * GIB, 6 * GIB, "warning", "not for CIFAR-10"),
        (20 * GIB, 2 * GIB, 3 * GIB, "warning", "0.0 GiB free"),
        (GIB // 2, None, None, "warning", "too little for most suites"),
        (20 * GIB, 64 * GIB, 0, "ok", "20.0 GiB free of 32.0"),
    ],
)
def test_memory(available: int, limit: int | None, used: int | None, status: str, says: str) -> None:
    finding = memory.judge(32 * GIB, available, limit, used)
    assert finding.status == status
    assert says in finding.found


def test_machine_memory(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       1024 kB\nMemFree: 1 kB\nMemAvailable:    512 kB\nHugePages_Total:       0\n")
    assert memory.machine_memory(path) == (2**20, 2**19)
    path.write_text("MemTotal:       1024 kB\n")
    assert memory.machine_memory(path) is None
    assert memory.machine_memory(tmp_path / "absent") is None


def test_clock() -> None:
    step, call = clock.measure()
    assert 0 < step < 0.1
    assert 0 < call < 0.1
    assert clock.judge(1e-7, 1e-7, "tsc").status == "ok"
    assert clock.judge(0.015, 1e-7, "").status == "warning"  # 64 Hz, as on some systems
    assert clock.judge(1e-7, 5e-6, "hpet").status == "warning"
    assert clock.judge(math.inf, 1e-7, "").status == "warning"


# -- folders, data, weights -----------------------------------------------------------------------------------------


def test_a_folder_that_does_not_exist_is_judged_by_the_one_above(tmp_path: Path) -> None:
    finding = folders.check_folder("runs", tmp_path / "a/b/c", needed=True, fix="x")
    assert finding.status == "ok"
    assert str(tmp_path / "a/b/c") in finding.found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("needed", "status"), [(True, "problem"), (False, "warning")])
def test_a_folder_that_cannot_be_written(tmp_path: Path, needed: bool, status: str) -> None:
    (tmp_path / "file").write_text("")
    finding = folders.check_folder("runs", tmp_path / "file/runs", needed=needed, fix="Name another.")
    assert (finding.status, finding.fix) == (status, "Name another.")
    assert "cannot be written" in finding.found


@pytest.mark.parametrize(("mib", "status"), [(5000, "ok"), (500, "warning"), (50, "problem")])
def test_room_on_the_disk(mib: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": mib * 2**20})
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda _: usage)
    assert folders.check_folder("runs", tmp_path, needed=True, fix="x").status == status


def test_cifar10_that_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFPBENCH_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    [finding] = data_sets.cifar10(Scope())
    assert (finding.status, finding.check) == ("warning", "CIFAR-10")
    assert f"KFPBENCH_DATA_DIR is {tmp_path}" in finding.found
    assert "kfpbench data fetch cifar10" in finding.fix


def test_cifar10_that_is_incomplete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFPBENCH_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "data_batch_1.bin").write_bytes(b"\0")
    [finding] = data_sets.cifar10(Scope())
    assert finding.status == "problem"
    assert "lacks data_batch_2.bin" in finding.found
    assert finding.fix


def test_fingerprints() -> None:
    same, other = data_sets.judge_cifar10("binary layout in x", "a" * 64, "a" * 64), "b" * 64
    assert same.status == "ok"
    assert data_sets.judge_cifar10("binary layout in x", "a" * 64, None).status == "ok"
    different = data_sets.judge_cifar10("binary layout in x", "a" * 64, other)
    assert different.status == "warning"
    assert "b" * 12 in different.found


def test_data_by_name() -> None:
    assert list(data_sets.named_data(Scope())) == []
    [finding] = data_sets.named_data(Scope(data="digits"))
    assert (finding.check, finding.status) == ("data digits", "ok")
    assert "rows of 64 numbers" in finding.found


def test_data_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no\x1b such disk")

    monkeypatch.setattr("kfpbench.data.digits.Digits.load", fail)
    [finding] = data_sets.named_data(Scope(data="digits"))
    assert (finding.status, finding.found) == ("problem", "cannot be loaded: RuntimeError: no? such disk")


def test_shipped_weights_are_whole() -> None:
    unet, cnn = weights.weights(Scope())
    assert (unet.status, cnn.status) == ("ok", "ok")
    assert "as its card says" in unet.found


def test_every_shipped_card_states_the_checksum_of_its_weights() -> None:
    from kfpbench import features, networks

    cards = [
        card for package in (features, networks) for card in (Path(package.__file__).parent / "weights").glob("*.md")
    ]
    assert {card.stem for card in cards} == {"cifar_cnn", "cifar10_unet"}
    for card in cards:
        found = hashlib.sha256(card.with_suffix(".safetensors").read_bytes()).hexdigest()
        assert weights.stated_digest(card) == found, card.name


def test_weights_that_differ_from_their_card(tmp_path: Path) -> None:
    from kfpbench.networks.checkpoint import SHIPPED

    copy, card = tmp_path / SHIPPED.name, SHIPPED.with_suffix(".md")
    content = bytearray(SHIPPED.read_bytes())
    content[-1] ^= 1
    copy.write_bytes(content)
    finding = weights.check_file("unet", copy, lambda path: "loads")
    assert (finding.status, "states no checksum" in finding.found) == ("ok", True)
    (tmp_path / card.name).write_text(card.read_text())
    finding = weights.check_file("unet", copy, lambda path: "loads")
    assert finding.status == "problem"
    assert "has changed" in finding.found
    assert weights.check_file("unet", tmp_path / "absent", lambda path: "loads").status == "problem"


class Optional:
    error: Exception | None = None

    @property
    def version(self) -> str:
        if self.error is not None:
            raise self.error
        return "inception/abc"


def test_optional_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.check_optional("inception", Optional).found.endswith("inception/abc")
    monkeypatch.setattr(Optional, "error", CapabilityError("no weights", remedy="Put some there."))
    absent = weights.check_optional("inception", Optional)
    assert (absent.status, absent.found) == ("ok", "optional, and not to be had here: no weights. Put some there.")
    monkeypatch.setattr(Optional, "error", DataError("damaged"))
    assert weights.check_optional("inception", Optional).status == "problem"


# -- KeOps ----------------------------------------------------------------------------------------------------------

GOOD = {"error": 1e-15, "compile_seconds": 9.0, "product_seconds": 1e-4}


@pytest.mark.parametrize(
    ("said", "status", "says"),
    [
        (GOOD, "ok", "compiled in 9.0 s"),
        ({**GOOD, "error": 0.1}, "problem", "differs from the dense product"),
        ({**GOOD, "error": math.nan}, "problem", "differs from the dense product"),
        ({"failed": "no\ncompiler"}, "warning", "no formula compiles: no compiler"),
    ],
)
def test_keops_trial_is_judged(said: dict[str, Any], status: str, says: str) -> None:
    finding = keops.judge_trial("pykeops", said)
    assert finding.status == status
    assert says in finding.found


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("import os; os._exit(3)", "code 3: it said nothing"),
        ("import sys; sys.exit('a broken\\x1b library')", "code 1: a broken? library"),
        ("import os; os.abort()", "code -6"),
        ("print('chatter')", "code 0: chatter"),
        ("import time; time.sleep(60)", "did not end within 3 s"),
    ],
)
def test_a_trial_that_goes_wrong(program: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trial_that_fails.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(keops, "_MODULE", "trial_that_fails")
    assert says in keops.run_trial("cpu", timeout=3 if "sleep" in program else 60)["failed"]


def test_keops_cache(tmp_path: Path) -> None:
    (tmp_path / "pykeops_cpp_1.so").write_bytes(b"x")
    assert keops.judge_cache(tmp_path).status == "ok"
    (tmp_path / "pykeops_cpp_2.so").touch()
    finding = keops.judge_cache(tmp_path)
    assert (finding.status, "1 of them broken" in finding.found) == ("warning", True)
    assert keops.judge_cache(tmp_path / "absent").status == "warning"


@pytest.mark.slow
def test_keops_compiles_here() -> None:
    findings = {finding.check: finding for finding in keops.keops(Scope())}
    assert findings["KeOps"].status in ("ok", "warning")  # a machine without a compiler is no failure
    if findings["KeOps"].status == "ok":
        assert "agrees with the dense one" in findings["KeOps"].found


# -- plugins --------------------------------------------------------------------------------------------------------


def test_plugins_that_fail_are_named_and_harm_no_other() -> None:
    entries = [
        Entry("kernels", "good", "kfpbench.kernels.rbf:RBF", "kfpbench 0.1.0"),
        Entry("kernels", "absent", "no_such_module:Kernel", "strange 1.0"),
        Entry("samplers", "no_class", "kfpbench.kernels.rbf:_no_such_name", "strange 1.0"),
        Entry("kernels", "both", "a:A and b:B", "one 1 and two 2", contested=True),
    ]
    *broken, good = plugins.judge(entries)
    assert [finding.check for finding in broken] == [
        "plugin kernels/absent",
        "plugin samplers/no_class",
        "plugin kernels/both",
    ]
    assert all(finding.status == "problem" and finding.fix for finding in broken)
    assert "strange 1.0" in broken[0].found
    assert (good.status, good.found) == ("ok", "1 components load: 1 of kfpbench 0.1.0")


# -- all ------------------------------------------------------------------------------------------------------------


def test_a_check_that_fails_is_a_finding() -> None:
    def broken_check(scope: Scope) -> list[Finding]:
        raise OSError("no\x1b such device")

    def ends(scope: Scope) -> list[Finding]:
        raise SystemExit("bye")

    first, second, third = examine([broken_check, ends, lambda scope: [ok("good", "fine")]], Scope())
    assert (first.check, first.status) == ("broken check", "problem")
    assert first.found == "the check failed: OSError: no? such device"
    assert second.status == "problem"
    assert third.status == "ok"


def test_exit_code() -> None:
    assert exit_code([ok("a", "x"), warning("b", "x", "y")]) == 0
    assert exit_code([ok("a", "x"), problem("b", "x", "y")]) == 1


def test_lines_are_wrapped_and_hold_the_fix() -> None:
    lines = as_lines(warning("a check", "word " * 60, "do this"))
    assert lines[0].startswith("warning  a check")
    assert all(len(line) <= 118 for line in lines)
    assert lines[-1].strip() == "fix: do this"


def test_every_check_is_listed() -> None:
    """A check is a function of a Scope in a file of the package, named in the list."""
    folder = Path(clock.__file__).parent
    assert {check.__module__ for check in CHECKS} >= {
        f"kfpbench.doctor.{path.stem}"
        for path in folder.glob("*.py")
        if "(scope: Scope) -> Iterator[Finding]:" in path.read_text()
    }
