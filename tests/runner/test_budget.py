import math
import pickle
import signal
import threading
import time

import pytest

from kfpbench.errors import BudgetError, CellTimeout, ParameterError
from kfpbench.runner.budget import Deadline, check_memory, time_budget

unix = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer")


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    """Every test starts without a timer and must end with none, and with the handler it found."""
    if not hasattr(signal, "setitimer"):
        yield
        return
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is handler
    signal.setitimer(signal.ITIMER_REAL, left, interval)


def spin(seconds):
    """A busy loop in Python; gives up after that long."""
    end = time.monotonic() + seconds
    count = 0
    while time.monotonic() < end:
        count += 1
    return count


@unix
def test_a_busy_loop_is_interrupted_in_time():
    begin = time.monotonic()
    with pytest.raises(CellTimeout, match=r"cell 7 ran longer.*at most 0\.1 s"), time_budget(0.1, "cell 7"):
        spin(5)
    assert 0.1 <= time.monotonic() - begin < 0.3


@unix
@pytest.mark.parametrize("wait", [lambda: time.sleep(5), lambda: threading.Event().wait(5)])
def test_a_wait_is_interrupted_too(wait):
    begin = time.monotonic()
    with pytest.raises(CellTimeout), time_budget(0.05):
        wait()
    assert time.monotonic() - begin < 0.3


def test_a_block_that_ends_in_time_is_left_alone():
    with time_budget(5) as deadline:
        assert 4 < deadline.remaining <= 5
        deadline.check()


@unix
def test_no_alarm_comes_after_the_block():
    with time_budget(0.05):
        pass
    spin(0.1)


def test_an_error_of_the_block_goes_through():
    with pytest.raises(ZeroDivisionError), time_budget(5):
        raise ZeroDivisionError


@pytest.mark.parametrize("limit", [None, math.inf])
def test_without_a_limit_there_is_no_timer(limit):
    with time_budget(limit) as deadline:
        if hasattr(signal, "setitimer"):
            assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert deadline.remaining == math.inf
        deadline.check()


def test_a_very_long_limit_is_possible():
    with time_budget(1e300):
        pass


@pytest.mark.parametrize("limit", [0, -1, math.nan, -math.inf])
def test_an_impossible_limit_is_refused(limit):
    with pytest.raises(ParameterError, match="positive"):
        time_budget(limit)


@unix
@pytest.mark.parametrize(("outer", "inner", "first"), [(5, 0.05, "inner"), (0.05, 5, "outer"), (0.05, 0.05, "outer")])
def test_of_nested_budgets_the_one_that_ends_first_raises(outer, inner, first):
    begin = time.monotonic()
    with pytest.raises(CellTimeout, match=first), time_budget(outer, "outer"), time_budget(inner, "inner"):
        spin(5)
    assert time.monotonic() - begin < 0.3


@unix
def test_the_outer_budget_goes_on_after_an_inner_one():
    def work():
        with pytest.raises(CellTimeout, match="inner"), time_budget(0.05, "inner"):
            spin(5)
        with time_budget(0.1, "second"):
            spin(0.02)
        spin(5)

    begin = time.monotonic()
    with pytest.raises(CellTimeout, match="outer"), time_budget(0.2, "outer"):
        work()
    assert 0.2 <= time.monotonic() - begin < 0.4


@unix
def test_an_outer_budget_that_is_over_when_the_inner_ends_raises_at_once():
    def overrun():
        try:
            spin(5)
        finally:
            spin(0.2)  # a slow clean-up, during which the outer time ends

    def work():
        with pytest.raises(CellTimeout, match="inner"), time_budget(0.05, "inner"):
            overrun()
        spin(5)

    begin = time.monotonic()
    with pytest.raises(CellTimeout, match="outer"), time_budget(0.15, "outer"):
        work()
    assert 0.25 <= time.monotonic() - begin < 0.45


@unix
def test_a_timer_of_someone_else_is_put_back_with_the_time_it_has_left():
    fired = []
    previous = signal.signal(signal.SIGALRM, lambda number, frame: fired.append(time.monotonic()))
    try:
        begin = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(CellTimeout), time_budget(0.05):
            spin(5)
        assert 0.1 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.15
        spin(0.25)
        assert len(fired) == 1
        assert fired[0] - begin == pytest.approx(0.2, abs=0.1)
    finally:
        signal.signal(signal.SIGALRM, previous)


@unix
def test_an_interruption_that_something_swallows_comes_again():
    swallowed = []

    def work():
        try:
            spin(5)
        except Exception as error:  # as a careless plugin does
            swallowed.append(error)
        spin(5)

    begin = time.monotonic()
    with pytest.raises(CellTimeout), time_budget(0.05):
        work()
    assert len(swallowed) == 1
    assert time.monotonic() - begin < 1.5


@unix
def test_no_moment_of_the_alarm_leaves_a_timer_behind():
    """Budgets that end just while the block is entered or left: it raises or not, and is clean after."""
    before = signal.getsignal(signal.SIGALRM)
    outcomes = {True: 0, False: 0}
    for k in range(3000):
        try:
            with time_budget(1e-6 + 2e-8 * (k % 1000)):
                for _ in range(k % 40):
                    pass
        except CellTimeout:
            outcomes[True] += 1
        else:
            outcomes[False] += 1
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0.0
        assert signal.getsignal(signal.SIGALRM) is before
    assert outcomes[False] > 0


def test_in_another_thread_the_check_between_batches_raises():
    raised = []

    def work():
        try:
            with time_budget(0.05, "the cell") as deadline:
                for _ in range(100):
                    time.sleep(0.01)
                    deadline.check()
        except CellTimeout as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(timeout=5)
    assert len(raised) == 1
    assert "at most 0.05 s" in str(raised[0])


def test_a_deadline_names_its_limit_and_survives_pickling():
    deadline = Deadline(1e-9, "cell 3")
    time.sleep(0.001)
    with pytest.raises(CellTimeout, match="cell 3") as caught:
        deadline.check()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_memory_beyond_the_budget_is_refused_with_both_numbers():
    with pytest.raises(BudgetError, match=r"cell 3 would need.*3\.00 GiB.*at most 2\.00 GiB"):
        check_memory(3 * 2**30, 2 * 2**30, "cell 3")
    check_memory(2**30, 2**30)
    check_memory(2**60, None)
