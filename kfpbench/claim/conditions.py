"""Under what the claim was tested: network, its quality, data, n, machine, and the limits that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kfpbench.claim.evidence import LATENCY, Sampled, number_of
from kfpbench.claim.few_step_speed import METRIC
from kfpbench.claim.reference_speed import sampler_name
from kfpbench.claim.verdict import Number
from kfpbench.errors import ParameterError
from kfpbench.report.numbers import format_interval, format_number, format_value
from kfpbench.statistics.observation import part
from kfpbench.statistics.paired_difference import paired_difference

SENTENCE_DATA, SENTENCE_STEPS, SENTENCE_N = "cifar10", 1000, 500


def conditions(manifest: Mapping[str, Any], reference: Sampled, spectral: Sequence[Sampled]) -> dict[str, str]:
    """Name and text of everything that a verdict depends on beside the samplers; what is not known is left out."""
    known = next((one for one in (reference, *spectral) if one.records), None)
    if known is None:
        return {}
    details = part(known.first, "details") or {}
    rows = {
        "score network": _network(known.spec, details.get("score") or {}),
        "its Fréchet distance": _distance(reference),
        "features": str(known.details(METRIC).get("features_version") or ""),
        "data": _data(known),
        "n": format_number(int(known.spec.get("n_samples") or 0), 0),
        "machine": _machine(manifest, known),
    }
    return {name: text for name, text in rows.items() if text}


def limits(
    reference: Sampled, spectral: Sequence[Sampled], control: Sampled | None, slight: float, copied: float
) -> list[str]:
    """What the card does not say, in sentences: three for every run, and those that follow from its numbers."""
    said = [
        "The sentence is known from the abstract: its hardware, network, n and measure of diversity are not. The "
        "verdicts are about this machine, this network and these samplers, not about the paper.",
        f"'Slight' is our reading: a loss of at most {100 * slight:g} % of the reference sampler's value. So is the "
        f"bound of {100 * copied:g} % on copies and blends: the sentence does not speak of memorisation.",
        "Both samplers inherit the score network's faults: a weak network makes an equal Fréchet distance easy, and "
        "speed at equal distance is then speed towards poor images.",
    ]
    said += _about_reference(reference)
    if control is not None:
        said += _about_control(reference, spectral, control)
    return said


def _about_reference(reference: Sampled) -> list[str]:
    if not reference.records:
        return []
    said = []
    block = reference.spec.get("sampler") or {}
    if (block.get("name"), block.get("steps")) != ("euler_maruyama", SENTENCE_STEPS):
        said.append(
            f"The reference here is {sampler_name(reference)}, not euler_maruyama with {SENTENCE_STEPS} steps: this is "
            "a trial of the card, not an answer."
        )
    name = (reference.spec.get("data") or {}).get("name")
    if name != SENTENCE_DATA:
        said.append(f"The data are {name}: the sentence is about CIFAR-10.")
    n = int(reference.spec.get("n_samples") or 0)
    if n < SENTENCE_N:
        said.append(f"n = {n}: below {SENTENCE_N} the intervals are wide and the metrics' bias at that n is large.")
    details = reference.details(METRIC)
    if details.get("rank_deficient"):
        said.append(f"{details.get('rank_note') or 'n is not above the number of features: covariances are singular'}.")
    return said


def _about_control(reference: Sampled, spectral: Sequence[Sampled], control: Sampled) -> list[str]:
    """Whether the network, and the spectral sampler, do more than a sampler that evaluates no network."""
    if not control.records:
        return [f"No control: {control.reason}."]
    said = []
    for one in (reference, *spectral):
        if not one.records:
            continue
        try:
            own, made = number_of(control, METRIC), paired_difference(one.records, control.records, METRIC)
        except ParameterError as error:
            said.append(f"{one.label} is not compared with the control: {error.what}.")
            continue
        difference = Number("", made.value, made.low, made.high)
        shown = f"whose Fréchet distance is {_shown(own)}; difference {_shown(difference)}"
        if difference.has_interval and made.high < 0:
            said.append(
                f"{one.label} is clearly better than the control {control.label}, which evaluates no network ({shown})."
            )
        elif difference.has_interval:
            word = "clearly worse than" if made.low > 0 else "not told apart from"
            said.append(
                f"{one.label} is {word} the control {control.label}, which evaluates no network ({shown}): "
                "what it adds is not shown here."
            )
    return said


def _network(spec: Mapping[str, Any], score: Mapping[str, Any]) -> str:
    block = spec.get("score") or {}
    facts = [str(block.get("name") or "")]
    if score.get("training"):
        facts.append(f"trained as {score['training']}")
    if isinstance(score.get("images"), int):
        facts.append(f"{score['images']:,} images seen")
    if score.get("sha256"):
        facts.append(f"sha256 {str(score['sha256'])[:12]}")
    return ", ".join(fact for fact in facts if fact)


def _distance(reference: Sampled) -> str:
    """The Frechet distance of the network's samples by the reference sampler."""
    if not reference.records:
        return ""
    try:
        number = number_of(reference, METRIC)
    except ParameterError:
        return ""
    bias = reference.details(METRIC).get("finite_n_bias")
    more = f", of which some {format_value(bias, abs(bias) / 4)} by the bias at this n" if bias and bias > 0 else ""
    return f"{_shown(number)} with {sampler_name(reference)}, n = {number.n}{more}"


def _shown(number: Number) -> str:
    ends = format_interval(number.low, number.high)
    return format_value(number.value, (number.high - number.low) / 2) + (f" ({ends})" if ends else "")


def _data(known: Sampled) -> str:
    block = known.spec.get("data") or {}
    return f"{block.get('name')}, reference: {block.get('reference')} images"


def _machine(manifest: Mapping[str, Any], known: Sampled) -> str:
    environment = manifest.get("environment") or {}
    cpu, threads = environment.get("cpu"), environment.get("threads")
    model = cpu.get("model") if isinstance(cpu, Mapping) else cpu
    count = threads.get("torch") if isinstance(threads, Mapping) else threads
    gpu = environment.get("gpu")
    device = str(part(known.first, "device") or known.spec.get("device") or "")
    facts = [device, str(gpu.get("name")) if isinstance(gpu, Mapping) else "", str(model or "")]
    facts.append(f"{count} thread{'' if count == 1 else 's'}" if count else "")
    facts.append(str(known.spec.get("dtype") or ""))
    return ", ".join(fact for fact in facts if fact)


def load_notes(manifest: Mapping[str, Any], *samplers: Sampled) -> tuple[str, ...]:
    """What was noted of other work on the machine: at the start of the run, and while the samplers were timed."""
    noted = [str(note) for note in manifest.get("notes") or ()]
    for one in samplers:
        load = one.details(LATENCY).get("load")
        if load:
            noted.append(f"{one.label}: {load}")
    return tuple(dict.fromkeys(noted))
