"""The report says in which features its numbers were measured."""

from __future__ import annotations

from kfpbench.report.aggregate import group_repeats
from kfpbench.report.cells import read_cells
from kfpbench.report.columns import quality_columns
from kfpbench.report.feature_notes import feature_notes
from kfpbench.report.html import render_report


def measured(metric, n=500, **details):
    return {"metric": metric, "value": 1.0, "ci_low": 0.5, "ci_high": 1.5, "n": n, "details": details}


def record(cell, *measurements):
    spec = {"data": {"name": "cifar10", "reference": "test"}, "sampler": {"name": cell}, "n_samples": 500}
    return {
        "cell": cell,
        "label": cell,
        "kind": "sample",
        "status": "ok",
        "spec": spec,
        "measurements": list(measurements),
    }


PCA = {"features": "pca", "features_version": "pca-64/1", "resize": "none"}
INCEPTION = {
    "features": "inception",
    "features_version": "inception/ab12",
    "resize": "32 x 32 to 299 x 299, <bilinear>",
}
OWN = {"features": "Norms", "features_version": "2", "resize": "not stated"}
RECORDS = [
    record("one", measured("recall", **PCA), measured("precision", **PCA), measured("frechet", **INCEPTION)),
    record("two", measured("recall", n=400, **PCA), measured("frechet", **OWN), measured("wasserstein")),
]


def test_metrics_are_put_together_by_their_features():
    groups = group_repeats(read_cells(RECORDS))
    assert feature_notes(groups, quality_columns(groups)) == [
        "recall, precision: features pca-64/1; n = 400, 500",
        "Fréchet distance: features inception/ab12, resize: 32 x 32 to 299 x 299, <bilinear>; n = 500",
        "Fréchet distance: features Norms 2, resize: not stated; n = 500",
    ]


def test_the_page_has_them_and_escapes_them(tmp_path):
    page = render_report({}, RECORDS, tmp_path)
    assert "Measured in: recall, precision: features pca-64/1; n = 400, 500. Fréchet distance: features" in page
    assert "32 x 32 to 299 x 299, &lt;bilinear&gt;; n = 500" in page
    assert "Measured in" not in render_report({}, [record("one", measured("wasserstein"))], tmp_path)
