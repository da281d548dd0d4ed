"""From the registry to benchmark classes: one class for every registered component, named after it.

A class for each, and not one class with the names as a parameter: asv asks for a parameter by its place in the list,
and that list is made anew by the commit that is benchmarked. A commit with one kernel less would time another kernel
under each later name, and nobody would see it. A class is asked for by its name; what a commit lacks is skipped.

``KFPBENCH_ASV_PLUGINS`` names plugin files, separated as in PATH, whose components are benchmarked too.
"""

import functools
import os
import re
from pathlib import Path

from asv_runner.benchmarks.mark import SkipNotImplemented

from kfpbench.errors import CapabilityError, ShapeError, UnknownComponentError
from kfpbench.registry import available, find, load_plugin_file
from kfpbench.runner.memory import PeakMemory
from kfpbench.testing.cases import cases, construct
from kfpbench.testing.contract import ContractError

PREFIX = {"kernels": "kernel", "backends": "backend", "eigensolvers": "eigensolver", "samplers": "sampler"}
PLUGINS = "KFPBENCH_ASV_PLUGINS"


def identifier(prefix, name):
    """The name of a benchmark's class: asv takes what follows a hyphen for the number of a parameter."""
    return f"{prefix}_{re.sub(r'[^0-9a-zA-Z_]', '_', name)}"


def add_benchmarks(kind, base, namespace):
    """Put one subclass of ``base`` for every registered component of a kind into a module's namespace.

    The module also answers for names of the same form that are not registered, with a benchmark that is skipped: asv
    asks every commit for the benchmarks that it has found in one of them.
    """
    load_plugin_files()
    for name in available(kind):
        _add(identifier(PREFIX[kind], name), name, base, namespace)

    def absent(attribute):
        if not attribute.startswith(f"{PREFIX[kind]}_"):
            raise AttributeError(attribute)
        return _add(attribute, attribute.removeprefix(f"{PREFIX[kind]}_"), base, namespace)

    namespace["__getattr__"] = absent


def _add(attribute, name, base, namespace):
    content = {"component": name, "__module__": namespace["__name__"], "__doc__": base.__doc__}
    made = type(attribute, (base,), content)
    namespace[attribute] = made
    return made


@functools.cache
def load_plugin_files():
    """Register what the files named by ``KFPBENCH_ASV_PLUGINS`` hold. Raises PluginError for a file that fails."""
    for file in filter(None, os.environ.get(PLUGINS, "").split(os.pathsep)):
        load_plugin_file(Path(file))


def build(kind, name, trial=lambda component: None, **preferred):
    """The component with ``preferred`` keywords where it takes them, else with its defaults, else with the first
    keywords that it gives the contract suite and that work.

    ``trial`` tries a component out. One that raises CapabilityError there is taken only where no other way to build it
    does better; one that raises ShapeError was made for another dimension. Raises NotImplementedError, which asv takes
    for "skip this", for what this commit does not have and for what cannot be had here.
    """
    try:
        component = find(kind, name).load()
    except UnknownComponentError as error:
        raise NotImplementedError(str(error)) from error
    limited, reason = None, None
    for case in (*cases(kind, component, (preferred, {})), *cases(kind, component)):
        try:
            made = construct(case)
        except (ContractError, CapabilityError) as error:  # it needs parameters, or what is not installed
            reason = error
            continue
        try:
            trial(made)
        except CapabilityError:
            limited = made if limited is None else limited
        except ShapeError as error:
            reason = error
        else:
            return made
    if limited is not None:
        return limited
    if isinstance(reason, ContractError):
        raise reason
    raise NotImplementedError(str(reason)) from reason


def once(setup):
    """A setup that is done once for the sizes of a process: asv calls it again before every timed call."""

    @functools.wraps(setup)
    def wrapper(self, *sizes):
        if self.__dict__.get("_sizes") != sizes:
            setup(self, *sizes)
            self._sizes = sizes

    return wrapper


def capable(call):
    """What ``call`` returns; what these components cannot do together is skipped."""
    try:
        return call()
    except CapabilityError as error:
        raise SkipNotImplemented(str(error)) from error


def peak_increase(call):
    """Bytes that ``call`` added to what the process held; skipped where the platform does not tell.

    asv's own ``peakmem`` is the peak of the whole process, where the 300 MB of torch hide twice the work space.
    """
    with PeakMemory() as memory:
        capable(call)
    if memory.result.increase is None:
        raise SkipNotImplemented(memory.result.note)
    return memory.result.increase


def benchmark(**attributes):
    """Set what asv reads off a benchmark's function: params, param_names, unit, timeout."""

    def mark(function):
        for key, value in attributes.items():
            setattr(function, key, value)
        return function

    return mark
