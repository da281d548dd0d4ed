"""Plan, execute, time and record the cells of a suite."""
