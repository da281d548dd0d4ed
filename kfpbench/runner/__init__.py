"""Plan, execute, time and record the cells of a suite."""

import logging

# What kfpbench logs is shown where a program, or `kfpbench run -v`, attaches a handler; else Python prints warnings.
logging.getLogger("kfpbench").addHandler(logging.NullHandler())
