"""Where the cells of a run are computed: in this process, in processes beside it, or on a Dask cluster.

Whatever the executor, one process owns the run folder and writes every record and file of it; the others compute and
send back. The seed of a cell decides its numbers, so that these do not depend on where it ran, timing aside.
"""
