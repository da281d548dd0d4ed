import os
import subprocess
import sys
import time

import pytest

from kfpbench.runner import machine_load
from kfpbench.runner.machine_load import LoadMeter, MachineLoad

LINES = """cpu  {total} 0 0 0 0 0 0 0 0 0
cpu0 {user} {nice} {system} {idle} {iowait} 0 {soft} {steal} {guest} 0
cpu1 0 0 0 9000 0 0 0 0 0 0
cpu2 77777 0 0 0 0 0 0 0 0 0
intr 5
"""


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Two of three processors are ours; time and counters pass only where a test says so."""

    class Machine:
        def __init__(self):
            self.now, self.own = 50.0, 3.0
            self.fields = dict.fromkeys(("user", "nice", "system", "idle", "iowait", "soft", "steal", "guest"), 100)
            self.path = tmp_path / "stat"
            self.write()

        def write(self, **changes):
            self.fields |= changes
            self.path.write_text(LINES.format(total=5, **self.fields))

    made = Machine()
    monkeypatch.setattr(machine_load, "_STAT", made.path)
    monkeypatch.setattr(time, "perf_counter", lambda: made.now)
    monkeypatch.setattr(time, "process_time", lambda: made.own)
    monkeypatch.setattr(os, "times", lambda: os.times_result((0, 0, 0, 0, 0)))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1}, raising=False)
    monkeypatch.setattr(os, "sysconf", lambda name: 100, raising=False)
    return made


def test_what_others_took_is_the_busy_time_less_our_own(machine):
    with LoadMeter(threads=1) as meter:
        machine.now += 10.0
        machine.own += 6.0
        # 6 s of ours, 3 s of others', 1 s each of interrupts and of the hypervisor; neither idle nor guest time counts
        machine.write(user=1000, soft=200, steal=200, idle=500, iowait=300, guest=900)
    load = meter.result
    assert (load.seconds, load.cores, load.threads) == (10.0, 2, 1)
    assert load.others == pytest.approx(5.0 / 20.0)
    assert load.own == pytest.approx(6.0 / 20.0)
    assert load.loaded
    assert "25% of 2 processor(s)" in load.note


def test_alone_on_the_machine_nobody_is_blamed(machine):
    with LoadMeter(threads=2) as meter:
        machine.now += 10.0
        machine.own += 20.0
        machine.write(user=2099)  # the counters step by 10 ms and may lag behind
    assert meter.result.others == 0.0
    assert meter.result.own == 1.0
    assert meter.result.note == ""


def test_a_short_time_tells_nothing(machine):
    with LoadMeter() as meter:
        machine.now += 0.4
        machine.write(user=180)
    assert meter.result.others is None
    assert not meter.result.loaded
    assert MachineLoad.from_plain(meter.result.as_plain()) == meter.result


def test_where_nothing_tells_nothing_is_claimed(machine):
    machine.path.unlink()
    with LoadMeter() as meter:
        machine.now += 5.0
    assert (meter.result.others, meter.result.note) == (None, "")
    machine.path.write_text("cpu0 0 0 0 0 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\n")  # as sandboxes show it
    with LoadMeter() as meter:
        machine.now += 5.0
    assert meter.result.others is None


@pytest.mark.parametrize(
    ("others", "cores", "threads", "loaded"),
    [
        (0.02, 2, 1, False),
        (0.09, 16, 1, False),  # more than a processor, but there are others
        (0.11, 16, 1, True),
        (0.04, 2, 2, False),
        (0.06, 2, 2, True),  # they are in the way of our two threads
        (0.06, 2, 8, True),
        (None, 2, 2, False),
    ],
)
def test_a_machine_is_loaded_when_others_take_a_tenth_or_what_we_need(others, cores, threads, loaded):
    load = MachineLoad(others, 0.5, 10.0, cores, threads)
    assert load.loaded == loaded
    assert bool(load.note) == loaded
    assert MachineLoad.from_plain(load.as_plain()) == load


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_real_neighbour_is_seen():
    """A program beside us that computes for as long as we sleep is someone else's work, even though we started it."""
    if machine_load._busy_seconds() is None:
        pytest.skip("this sandbox shows no processor times")
    code = "import time\nend = time.time() + 60\nwhile time.time() < end: pass"
    other = subprocess.Popen([sys.executable, "-c", code])
    try:
        with LoadMeter(threads=1) as meter:
            time.sleep(1.2)
    finally:
        other.kill()
        other.wait()
    # it got one processor, or at least its share of those that are busy already
    assert meter.result.others >= 0.4 / meter.result.cores
    assert meter.result.own < 0.2
