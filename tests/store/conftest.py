import numpy as np
import pytest

from kfpbench.data.dataset import Dataset
from kfpbench.store.records import CellRecord


@pytest.fixture
def make_record():
    def make(cell="c0", **changes):
        content = {
            "cell": cell,
            "index": int(cell[1:]) if cell[1:].isdigit() else 0,
            "label": "koopman",
            "kind": "sample",
            "status": "ok",
            "started": "2026-01-31T12:00:00+00:00",
            "finished": "2026-01-31T12:00:01.5+00:00",
            "seconds": 1.5,
            "seed": 3,
            "device": "cpu",
            "axes": {"sampler.rank": 16},
            "spec": {
                "data": {"name": "gmm_ring", "reference": "test", "modes": 8},
                "score": {"name": "mixture"},
                "process": {"name": "ve"},
                "sampler": {
                    "name": "koopman",
                    "label": "koopman",
                    "kernel": {"name": "rbf", "bandwidth": "median"},
                    "operator": {
                        "name": "generator",
                        "eta": 0.0,
                        "time": "piecewise",
                        "frame": {"name": "raw"},
                    },
                    "eigensolver": {"name": "dense"},
                    "backend": {"name": "tiled"},
                    "rank": 16,
                },
                "dtype": "float64",
            },
            "measurements": [
                {"metric": "energy_distance", "value": 0.1, "ci_low": 0.05, "ci_high": 0.2, "n": 1000},
                {"metric": "latency", "value": 0.01, "unit": "s", "better": "lower"},
            ],
        }
        return CellRecord(**{**content, **changes})

    return make


@pytest.fixture
def points():
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, size=(60, 2)).astype(np.float32)
    return Dataset("square", rows[:20], rows[20:40], rows[40:], fingerprint="ab12")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, size=(30, 3 * 4 * 4)).astype(np.float32)
    return Dataset("patches", rows[:10], rows[10:20], rows[20:], image_shape=(3, 4, 4))
