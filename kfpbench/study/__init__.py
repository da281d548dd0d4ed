"""Searches over configurations with Optuna: multi-objective, staged, and by any number of workers on one storage.

Order of the work: `definition` reads the suite, `storage` and `claims` hold what workers share, `worker` takes trials,
`trial` runs one through the project's runner, `views` and `report` show what came of them, `export` writes suites.
"""
