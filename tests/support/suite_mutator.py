"""A seeded mutator of suite files: whatever an editor, a merge or a disk can do to one, and what nobody would do."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

from kfpbench.errors import KfpbenchError
from kfpbench.suite.yaml_source import parse_yaml

Path = tuple[str | int, ...]

WORDS = (
    "name", "data", "score", "process", "samplers", "spectrum", "metrics", "grid", "seed", "repeats", "n_samples",
    "batch_size", "dtype", "device", "budget", "label", "kernel", "operator", "eigensolver", "backend", "rank",
    "eta", "time", "frame", "steps", "features", "refiner", "start", "claim", "timing", "include", "plugins",
    "description", "schema_version", "train_size", "reference", "seconds", "memory_gib", "rounds", "batches",
    "anchor", "latency_repeats",
)  # fmt: skip
NUMBERS = (0, -1, 1, 2, 10**6, 10**18, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30, 10**399, 0.5, -0.0, 1e-320, 1e308)
TEXTS = (
    "", " ", ".", "..", "a.b", "median", "null", "~", "yes", "1e3", "0x10", "1_000", "-", "*", "{}", "[]", "../../etc",
    "/dev/null", "\u202e", "\u00e9" * 3, "\U0001f600", "\x00", "\x1b[31m", "a" * 5000, "cuda:99", "$HOME", "<b>", "%s",
)  # fmt: skip
SCALARS = (
    "!!python/object/apply:os.system [ls]", "!!binary aGk=", "!!set {a}", "!!timestamp 2001-01-01", "!a b", "&a *a",
    "*nobody", "&x [*x]", "{<<: [{a: 1}]}", "<<", "? a", "? [a, b] : c", "|2-\n  x", ">-", "'", '"', '"\\xZZ"',
    '"\\uD800"', '"\\U0010FFFF"', ".inf", "-.INF", ".nan", "0o17", "0b2", "1e999", "9" * 390, "9" * 500, "=", "@", "`",
    "%YAML 1.1", "---", "...", "\t", "# x", ": :", "- - - -", "{a: {a: {a: a}}}", "[[[[[[]]]]]]", "{,}", "[,]", "{a}",
    "1:30", "2001-01-01", "!!str 3", "!!int x", "!!float 1", "!!null x", "!<tag:yaml.org,2002:str> x", "&\u00e9 x",
)  # fmt: skip
CHARACTERS = "\ufeff\x00\x07\x85\u2028\u2029\ud7ff\ue000\uffff\U0010ffff\u202e\xa0\t\r:-?[]{}&*!|>'\"%@`#,<=~"


def mutate(seeds: list[str], rng: random.Random) -> bytes:
    """One mutated suite as the bytes of a file: of one of the texts, changed once to four times, at three levels."""
    text = rng.choice(seeds)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        text = _structure(text, seeds, rng)
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        text = rng.choice(_ON_TEXTS)(text, rng)
    content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        content = rng.choice(_ON_BYTES)(content, rng)
    return content


def _structure(text: str, seeds: list[str], rng: random.Random) -> str:
    """The text with its tree changed, written as JSON or as block YAML; as it is where it is no YAML."""
    try:
        data = parse_yaml(text, "seed").data
        other = parse_yaml(rng.choice(seeds), "other").data
    except KfpbenchError:
        return text
    places = [path for path in _places(data) if path]
    if not places:
        return text
    path = rng.choice(places)
    holder, last = _at(data, path[:-1]), path[-1]
    rng.choice(_ON_TREES)(data, holder, last, other, rng)
    return json.dumps(data, ensure_ascii=rng.random() < 0.5) if rng.random() < 0.3 else _block(data)


# -- trees -----------------------------------------------------------------------------------------


def _delete(data: Any, holder: Any, last: Any, other: Any, rng: random.Random) -> None:
    del holder[last]


def _rename(data: Any, holder: Any, last: Any, other: Any, rng: random.Random) -> None:
    if isinstance(holder, dict):
        value = holder.pop(last)
        name = rng.choice((rng.choice(WORDS), last[:-1], last.upper(), last + last[-1:], rng.choice(TEXTS)))
        holder[name] = value


def _replace(data: Any, holder: Any, last: Any, other: Any, rng: random.Random) -> None:
    holder[last] = _value(rng)


def _number(data: Any, holder: Any, last: Any, other: Any, rng: random.Random) -> None:
    paths = [path for path in _places(data) if path and _is_number(_at(data, path))]
    if paths:
        path = rng.choice(paths)
        _at(data, path[:-1])[path[-1]] = rng.choice(NUMBERS)


def _transplant(data: Any, holder: Any, last: Any, other: Any, rng: random.Random) -> None:
    holder[last] = copy.deepcopy(_at(other, rng.choice(_places(other))))


def _within_itself(data: Any, holder: Any, last: Any, other: Any, rng: random.Random) -> None:
    holder[last] = copy.deepcopy(_at(data, rng.choice(_places(data))))


def _wrap(data: Any, holder: Any, last: Any, other: Any, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 2, 5, 30, 40, 300))):
        holder[last] = [holder[last]] if rng.random() < 0.5 else {rng.choice(WORDS): holder[last]}


def _twice(data: Any, holder: Any, last: Any, other: Any, rng: random.Random) -> None:
    if isinstance(holder, list):
        for _ in range(rng.choice((1, 1, 2, 60))):
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[last]))
    else:
        holder[rng.choice(WORDS)] = copy.deepcopy(holder[last])


def _add(data: Any, holder: Any, last: Any, other: Any, rng: random.Random) -> None:
    if isinstance(holder, dict):
        holder[rng.choice((rng.choice(WORDS), rng.choice(TEXTS)))] = _value(rng)
    else:
        holder.append(_value(rng))


def _axis(data: Any, holder: Any, last: Any, other: Any, rng: random.Random) -> None:
    """An axis over a path of this suite, or over none."""
    parts = [str(part) for part in rng.choice([path for path in _places(data) if path])]
    if parts[0] in ("samplers", "spectrum") and len(parts) > 1:
        block = data[parts[0]]
        block = block[int(parts[1])] if isinstance(block, list) and parts[1].isdigit() else None
        if isinstance(block, dict):
            parts[1] = str(block.get("label") or block.get("name"))
    if rng.random() < 0.3:
        parts[rng.randrange(len(parts))] = rng.choice(WORDS)
    key = ".".join(parts)
    if rng.random() < 0.2:
        key += ", " + rng.choice(WORDS)
    values = [_value(rng) for _ in range(rng.choice((0, 1, 2, 3)))]
    if rng.random() < 0.1:
        values = list(range(rng.choice((50, 500, 5000))))
    if isinstance(data, dict):
        grid = data.get("grid")
        data["grid"] = {**grid, key: values} if isinstance(grid, dict) else {key: values}


_ON_TREES: tuple[Callable[..., None], ...] = (
    _delete, _rename, _replace, _number, _transplant, _within_itself, _wrap, _twice, _add, _axis,
)  # fmt: skip


def _value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(8 if depth < 3 else 5)
    if kind < 2:
        return rng.choice(NUMBERS)
    if kind == 2:
        return rng.choice(TEXTS)
    if kind == 3:
        return rng.choice((None, True, False, float("inf"), float("nan")))
    if kind == 4:
        return rng.choice(WORDS)
    if kind == 5:
        return [_value(rng, depth + 1) for _ in range(rng.randrange(3))]
    if kind == 6:
        return {rng.choice(WORDS): _value(rng, depth + 1) for _ in range(rng.randrange(3))}
    return {"name": rng.choice((*WORDS, "rbf", "koopman", "sum", "digits", "jump", "smoothed", "ard", "partitioned"))}


# -- texts -----------------------------------------------------------------------------------------


def _lines(text: str, rng: random.Random) -> str:
    """Lines lost, doubled, moved or indented otherwise."""
    lines = text.split("\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    action = rng.randrange(5)
    if action == 0:
        del lines[i : i + rng.choice((1, 1, 3))]
    elif action == 1:
        lines.insert(j, lines[i])
    elif action == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif action == 3:
        lines[i] = " " * rng.randrange(5) + lines[i]
    else:
        lines[i] = lines[i].lstrip() if rng.random() < 0.7 else "\t" + lines[i]
    return "\n".join(lines)


def _splice(text: str, rng: random.Random) -> str:
    """A few characters out, others in."""
    start = rng.randrange(len(text) + 1)
    end = min(len(text), start + rng.choice((0, 0, 1, 2, 10)))
    count = rng.randrange(4)
    return text[:start] + "".join(rng.choice(CHARACTERS) for _ in range(count)) + text[end:]


def _scalar(text: str, rng: random.Random) -> str:
    """A value replaced by YAML that is odd or not allowed."""
    spots = [i for i in range(len(text) - 1) if text[i : i + 2] == ": "]
    if not spots:
        return text + rng.choice(SCALARS)
    spot = rng.choice(spots) + 2
    ends = [end for mark in (",", "}", "\n") if (end := text.find(mark, spot)) >= 0]
    return text[:spot] + rng.choice(SCALARS) + text[min(ends, default=len(text)) :]


def _anchors(text: str, rng: random.Random) -> str:
    """Anchors, aliases and merge keys; bombs among them."""
    lines = text.split("\n")
    i, j = sorted((rng.randrange(len(lines)), rng.randrange(len(lines))))
    action = rng.randrange(4)
    if action == 0 and ": " in lines[i]:
        lines[i] = lines[i].replace(": ", ": &a ", 1)
        lines.insert(j + 1, rng.choice(WORDS) + ": *a")
    elif action == 1:
        lines.insert(i, rng.choice(("<<: *a", "<<: {a: b}", "<<: [1]", "<<: &b {<<: *b}", "&k name: *k")))
    elif action == 2:
        width = rng.choice((2, 9, 10))
        bomb = ["z0: &z0 [" + ", ".join("x" * width) + "]"]
        bomb += [f"z{k}: &z{k} [" + ", ".join([f"*z{k - 1}"] * width) + "]" for k in range(1, rng.choice((3, 9, 40)))]
        lines[j:j] = bomb
    else:
        lines[i] = "&a " + lines[i]
    return "\n".join(lines)


def _deep(text: str, rng: random.Random) -> str:
    """Brackets to a depth that recursion would not survive."""
    depth = rng.choice((5, 31, 33, 500, 20_000))
    mark = rng.choice(("[", "{a: ", "- ", "? ", "&a [", "!!seq ["))
    return f"{text}\n{rng.choice(WORDS)}: {mark * depth}"


def _cut(text: str, rng: random.Random) -> str:
    return text[: rng.randrange(len(text) + 1)]


def _long(text: str, rng: random.Random) -> str:
    """More of everything."""
    count = rng.choice((10, 2000))
    return text + "\n" + rng.choice(("# x\n", "\n", "- ", "a: 1\n", "a: [1, 2, 3]\nb: ", "'", " ")) * count


_ON_TEXTS: tuple[Callable[[str, random.Random], str], ...] = (
    _lines, _lines, _splice, _splice, _scalar, _scalar, _anchors, _deep, _cut, _long,
)  # fmt: skip


# -- bytes -----------------------------------------------------------------------------------------


def _truncate(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 30))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _encode(content: bytes, rng: random.Random) -> bytes:
    return content.decode("utf-8", "replace").encode(
        rng.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32")), "replace"
    )


def _noise(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(200))


def _ends(content: bytes, rng: random.Random) -> bytes:
    return content.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\x00", b"\n\n", b"\x85")))


_ON_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (_truncate, _flip, _encode, _noise, _ends)


# -- plain data ------------------------------------------------------------------------------------


def _places(value: Any, path: Path = ()) -> list[Path]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in items for place in _places(child, (*path, key)))]


def _at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _block(value: Any, indent: int = 0) -> str:
    """Block YAML of plain data, as people write it; text in quotes where it needs them."""
    pad = "  " * indent
    if isinstance(value, dict) and value and indent < 20:
        return "".join(
            f"{pad}{_flow(str(key))}:" + (f"\n{_block(child, indent + 1)}" if _nested(child) else f" {_flow(child)}\n")
            for key, child in value.items()
        )
    if isinstance(value, list) and value and indent < 20:
        return "".join(f"{pad}- {_flow(child)}\n" for child in value)
    return f"{pad}{_flow(value)}\n"


def _nested(value: Any) -> bool:
    return isinstance(value, dict | list) and bool(value)


def _flow(value: Any) -> str:
    if isinstance(value, str) and value.replace("_", "").isalnum() and value.isascii() and not value[0].isdigit():
        return value
    return json.dumps(value)
