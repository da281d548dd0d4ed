"""Part 5: memorisation."""

from __future__ import annotations

import math

from kfpbench.claim.evidence import Sampled, number_of, numbers_of
from kfpbench.claim.verdict import Judged, Number, Part, all_of, at_most
from kfpbench.errors import ParameterError

METRICS = {"memorised_fraction": "copies", "blended_fraction": "blends"}
_BESIDE = ("copied_fraction", "nearest_train_ratio", "authenticity", "authenticity_loss", "data_copying")


def judge_memorisation(spectral: Sampled, reference: Sampled, copied: float) -> Part:
    """Holds where the shares of samples that are copies, and blends of two training images, are at most ``copied``.

    Fails where one of them is above it with its whole interval. ``memorised_fraction`` is taken for copies rather than
    ``copied_fraction``: smooth images count as copies in the latter, since they are near to everything.
    """
    rule = (
        f"at most {100 * copied:g} % of the samples are copies of a training image, and at most as many blends of two, "
        "each with the whole 95 % interval"
    )
    given = ("memorisation", "memorisation: neither copies nor blends of training images", rule, copied)
    if not spectral.records:
        return Part(*given, "missing", spectral.reason)
    judged = [_judge(spectral, metric, words, copied) for metric, words in METRICS.items()]
    decision, reason, number = all_of(judged)
    evidence = [one.number for one in judged if one.number is not number]
    evidence += numbers_of(spectral, _BESIDE)
    if reference.records:
        evidence += numbers_of(reference, (*METRICS, *_BESIDE))
    features = spectral.details(next(iter(METRICS))).get("features_version")
    notes = (f"distances in the features {features}",) if features else ()
    shown = None if math.isnan(number.value) else number
    return Part(*given, decision, reason, shown, tuple(evidence), notes, {"spectral": spectral.cell})


def _judge(spectral: Sampled, metric: str, words: str, copied: float) -> Judged:
    name = f"share of {words} among the samples of {spectral.label}"
    try:
        number = number_of(spectral, metric, name)
    except ParameterError as error:
        return Judged(Number(name, math.nan), "missing", error.what)
    return Judged(number, *at_most(number, copied))
