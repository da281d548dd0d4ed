"""The checks in the order in which they are shown. A new one is a function of a Scope and a line here."""

from __future__ import annotations

from kfpbench.doctor.clock import clock
from kfpbench.doctor.cuda import cuda
from kfpbench.doctor.data_sets import cifar10, named_data
from kfpbench.doctor.finding import Check
from kfpbench.doctor.folders import folders
from kfpbench.doctor.keops import keops
from kfpbench.doctor.memory import memory
from kfpbench.doctor.packages import packages
from kfpbench.doctor.plugins import plugins
from kfpbench.doctor.processors import processors
from kfpbench.doctor.python_version import python_version
from kfpbench.doctor.torch_build import torch_build
from kfpbench.doctor.weights import optional_weights, weights

CHECKS: tuple[Check, ...] = (
    python_version,
    packages,
    torch_build,
    cuda,
    processors,
    memory,
    clock,
    folders,
    keops,
    cifar10,
    named_data,
    weights,
    optional_weights,
    plugins,
)
