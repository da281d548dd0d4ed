"""Find components by kind and name: entry points, and local plugin files that a suite names.

A component is registered by one entry point in the group ``kfpbench.<kind>``, or, in a local plugin file, by the
decorator ``@kfpbench.register("kernels", "name")``. Nothing is imported before it is asked for.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import CodeType
from typing import Any, TypeVar

from kfpbench.errors import PluginError, UnknownComponentError
from kfpbench.protocols import KINDS

T = TypeVar("T", bound=type)


@dataclass(frozen=True)
class Entry:
    """One registered component: where it is defined, and who brought it."""

    kind: str
    name: str
    target: str  # "module:Class"
    origin: str  # "kfpbench 0.1.0", or the path of a local plugin file
    component: type | None = None  # set for local plugins, None until loaded for entry points
    contested: bool = False  # two distributions register different components under this name: none can be loaded

    def load(self) -> type:
        """Import the component. Raises PluginError, naming it, when its module cannot be imported."""
        if self.contested:
            raise PluginError(
                f"two distributions register {self.name!r} in {self.kind}: {self.origin}",
                got=self.target,
                remedy="Uninstall one of them, or ask its author for another name; other components are not affected.",
            )
        if self.component is not None:
            return self.component
        module_name, _, attribute = self.target.partition(":")
        try:
            component = getattr(importlib.import_module(module_name), attribute)
        except (Exception, SystemExit) as error:  # a plugin may fail in any way; it is named, and harms no other
            raise PluginError(
                f"the {self.kind} component {self.name!r} from {self.origin} cannot be loaded: "
                f"{type(error).__name__}: {error}",
                got=self.target,
                remedy="Repair or uninstall that plugin; other components are not affected.",
            ) from error
        if not isinstance(component, type):
            raise PluginError(
                f"the {self.kind} component {self.name!r} from {self.origin} is not a class", got=self.target
            )
        return component


_local: dict[tuple[str, str], Entry] = {}
_installed: dict[str, dict[str, Entry]] = {}
_loading: list[str] = []  # path of the local plugin file being executed, innermost last


def register(kind: str, name: str) -> Callable[[T], T]:
    """Class decorator that registers a component from a local plugin file.

    Raises PluginError for an unknown kind, or a name that another component already has. Outside a plugin file (in a
    notebook) the same module may register a name again: the later class counts.
    """
    if kind not in KINDS:
        raise PluginError("unknown kind of component", got=kind, allowed=", ".join(KINDS))

    def add(component: T) -> T:
        origin = _loading[-1] if _loading else component.__module__
        taken = available(kind).get(name)
        if taken is not None and (taken.origin != origin or _loading):
            raise PluginError(
                f"{kind} already has a component named {name!r}, from {taken.origin}",
                remedy="Register yours under another name.",
                where=origin,
            )
        target = f"{component.__module__}:{component.__qualname__}"
        _local[kind, name] = Entry(kind, name, target, origin, component)
        return component

    return add


@functools.cache
def _all_entry_points() -> list[metadata.EntryPoint]:
    """Those of every installed distribution: one scan, which takes tens of milliseconds."""
    return [point for distribution in metadata.distributions() for point in distribution.entry_points]


def _entry_points(group: str) -> list[metadata.EntryPoint]:
    return [point for point in _all_entry_points() if point.group == group]


def available(kind: str) -> dict[str, Entry]:
    """All components of a kind by name, sorted; nothing is imported. Raises PluginError for an unknown kind."""
    if kind not in KINDS:
        raise PluginError(
            "unknown kind of component",
            got=kind,
            allowed=", ".join(KINDS),
            remedy=_closest(kind, KINDS),
        )
    if kind not in _installed:
        entries: dict[str, Entry] = {}
        origins: dict[int, str] = {}  # by distribution: its name and version are parsed out of a file at each access
        for point in _entry_points(f"kfpbench.{kind}"):
            origin = origins.get(id(point.dist), "unknown distribution")
            if point.dist and id(point.dist) not in origins:
                origin = origins[id(point.dist)] = f"{point.dist.name} {point.dist.version}"
            known = entries.get(point.name)
            if known is not None and known.target != point.value:
                both = f"{known.target} and {point.value}", f"{known.origin} and {origin}"
                entries[point.name] = Entry(kind, point.name, *both, contested=True)  # loading it is refused
            else:
                entries[point.name] = Entry(kind, point.name, point.value, origin)
        _installed[kind] = entries
    local = {name: entry for (entry_kind, name), entry in _local.items() if entry_kind == kind}
    return dict(sorted({**_installed[kind], **local}.items()))


def find(kind: str, name: str) -> Entry:
    """The component of that kind and name. Raises UnknownComponentError with the closest match."""
    entries = available(kind)
    if name not in entries:
        raise UnknownComponentError(
            f"no component of {kind} has that name",
            got=name,
            allowed=", ".join(entries) or "none is installed",
            remedy=_closest(name, entries) or f"`kfpbench ls {kind}` shows what is installed.",
        )
    return entries[name]


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles the file as it is now. A bytecode cache would be written beside a stranger's file, and be taken for an
    edited one that has the same size and second.
    """

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def load_plugin_file(path: Path) -> None:
    """Execute a local plugin file so that its ``@register`` lines take effect. Raises PluginError.

    Executes code: callers ask the user first (``--allow-plugins``). Loading the same file again replaces its entries; a
    file that fails leaves what was registered before it.
    """
    path = path.resolve()
    origin = str(path)
    if not path.is_file():
        raise PluginError("plugin file not found", got=origin, remedy="Check `plugins:` in the suite.")
    if path.suffix != ".py":
        raise PluginError("plugin file is not a Python file", got=origin, allowed="a path ending in .py")
    # alike in every process: what is kept of a plugin's components is named by it
    module_name = f"kfpbench_local_plugins.{path.stem}_{hashlib.sha256(origin.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path, loader=_FreshLoader(module_name, origin))
    if spec is None or spec.loader is None:
        raise PluginError("plugin file cannot be loaded", got=origin)
    module = importlib.util.module_from_spec(spec)
    earlier, earlier_module = dict(_local), sys.modules.get(module_name)
    for key in [key for key, entry in _local.items() if entry.origin == origin]:
        del _local[key]
    sys.modules[module_name] = module
    _loading.append(origin)
    loaded = False
    try:
        spec.loader.exec_module(module)
        loaded = True
    except PluginError:
        raise
    except (Exception, SystemExit) as error:  # any failure of a stranger's file is reported as that file's
        raise PluginError(f"plugin file failed while loading: {type(error).__name__}: {error}", where=origin) from error
    finally:
        _loading.pop()
        if not loaded:
            _local.clear()
            _local.update(earlier)
            del sys.modules[module_name]
            if earlier_module is not None:
                sys.modules[module_name] = earlier_module


def local_plugin_files() -> list[Path]:
    """The local plugin files that are loaded, in the order of their loading; not what a notebook has registered."""
    return [
        Path(origin) for origin in dict.fromkeys(entry.origin for entry in _local.values()) if origin.endswith(".py")
    ]


def _closest(name: str, candidates: object) -> str | None:
    matches = difflib.get_close_matches(str(name), list(candidates), n=1, cutoff=0.5)  # type: ignore[call-overload]
    return f"Did you mean {matches[0]!r}?" if matches else None


def resolve(kind: str, component: object) -> Any:
    """The component itself, or, for a name, that registered component with its default parameters."""
    return find(kind, component).load()() if isinstance(component, str) else component
