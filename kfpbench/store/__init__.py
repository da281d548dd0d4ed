"""The run folder: manifest, cells, results, samples."""
