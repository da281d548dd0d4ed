"""The version of a component's code: what is kept of a component is out of date when its code has changed."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import sys
import types
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from weakref import WeakKeyDictionary

_OWN = ("kfpbench", "kfpbench_baselines")
_LIBRARIES = {"builtins", "torch", "numpy", "scipy", "sklearn", "diffusers"}  # known by their version
_NO_COMPONENTS = (type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType)
_versions: WeakKeyDictionary[type, str] = WeakKeyDictionary()
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n]*)|import[ \t]+([\w., \t]+))", re.M
)
_NAME = re.compile(r"\w+")


def code_version(component: type) -> str:
    """The version of the component's package, and the first 16 digits of a SHA-256 of its source.

    The source is the module of the class and of the classes that it derives from, and whatever these import from their
    own package and from kfpbench, directly or not: an edited helper is an edited component. A class without a source
    file has its package's version alone. Read once for each class: a plugin that is loaded again is another class.
    """
    if component not in _versions:
        modules = {cls.__module__ for cls in component.__mro__ if cls is not object}
        _versions[component] = f"{_package_version(component.__module__)} {_source_of(frozenset(modules))}"
    return _versions[component]


def code_versions(components: Iterable[object]) -> dict[str, str]:
    """``code_version`` of the class of every object, and of what the objects hold in their attributes, by class."""
    classes: set[type] = {type(part) for part in parts_of(components)}
    return dict(sorted((class_name(cls), code_version(cls)) for cls in classes))


def parts_of(components: Iterable[object]) -> list[object]:
    """The objects, and the objects in their attributes, at every depth and once each: kernels, refiners, options."""
    found: list[object] = []
    seen: set[int] = set()
    waiting = list(components)[::-1]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, list | tuple):
            waiting += part[::-1]
        elif isinstance(part, dict):
            waiting += list(part.values())[::-1]
        elif hasattr(part, "__dict__") and not isinstance(part, _NO_COMPONENTS):
            found.append(part)
            waiting += list(vars(part).values())[::-1]
    return found


def class_name(component: type) -> str:
    """Module and name, alike in every process and, for a local plugin, in every folder."""
    module = component.__module__
    if module.startswith("kfpbench_local_plugins."):
        module = f"plugin {Path(getattr(sys.modules.get(module), '__file__', None) or module).stem}"
    return f"{module}:{component.__qualname__}"


@functools.cache
def _package_version(module: str) -> str:
    package = module.partition(".")[0]
    if package == "kfpbench_local_plugins":
        return ""
    try:
        return metadata.version("kfpbench" if package in _OWN else package)
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules.get(package), "__version__", ""))


def _source_of(modules: frozenset[str]) -> str:
    """Digest of the sources of the modules and of all that they import from packages that count."""
    packages = {*_OWN, *(name.partition(".")[0] for name in modules)} - _LIBRARIES
    found: dict[str, str] = {}
    waiting = sorted(modules)
    while waiting:
        name = waiting.pop()
        if name in found or name.partition(".")[0] not in packages:
            continue
        path = _file_of(name)
        if path is None:
            continue
        found[name], imports = _read(path)
        waiting += imports
    # names of local plugins hold their folder: their content counts
    lines = sorted(
        f"{'' if name.startswith('kfpbench_local_plugins.') else name} {text}" for name, text in found.items()
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] if lines else ""


def _file_of(name: str) -> str | None:
    loaded = sys.modules.get(name)
    path = getattr(loaded, "__file__", None) if loaded is not None else _found_file(name)
    return path if path is not None and path.endswith(".py") else None


@functools.cache
def _found_file(name: str) -> str | None:
    """The file of a module that is not loaded, found without loading it or its packages; None for what is no module.

    What is loaded must not matter: processes that compute the same must agree on the version.
    """
    top, *parts = name.split(".")
    for place in _places(top):
        path = Path(place, *parts)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return str(file)
    return None


def _places(package: str) -> list[str]:
    """The folders of a package that is not part of another one."""
    loaded = sys.modules.get(package)
    if loaded is not None:
        return list(getattr(loaded, "__path__", ()))
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    return list(spec.submodule_search_locations or ()) if spec is not None else []


def _read(path: str) -> tuple[str, tuple[str, ...]]:
    """SHA-256 of a source file, and the modules that its import statements may name."""
    try:
        content = Path(path).read_bytes()
    except OSError:
        return "unreadable", ()
    names: list[str] = []
    for source, members, plain in _IMPORT.findall(content.decode("utf-8", "replace")):
        if plain:
            names += [part.split()[0] for part in plain.split(",") if part.split()]
        else:
            names += [source, *(f"{source}.{member}" for member in _NAME.findall(members))]
    return hashlib.sha256(content).hexdigest(), tuple(dict.fromkeys(names))
