"""What a process needs besides its cells, to compute what this one would: threads, plugins, the cache, rules."""

from __future__ import annotations

import hashlib
import logging
import platform
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kfpbench import __version__
from kfpbench.cache.location import cache_folder, largest_size
from kfpbench.cache.store import Store
from kfpbench.cache.use import current
from kfpbench.errors import CapabilityError, PluginError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """Plain values; made by the owner of the run.

    ``threads`` are torch's: another number changes the rounding of sums. ``plugins`` are the local plugin files that
    are loaded, with path, text and SHA-256. ``gpu`` is what CUDA_VISIBLE_DEVICES is set to, if anything. ``cache`` is
    the cache in use, with its host.
    """

    version: str
    threads: int
    isolate: bool
    share_device: bool
    plugins: list[dict[str, str]] = field(default_factory=list)
    gpu: str | None = None
    cache: dict[str, Any] | None = None

    def as_plain(self) -> dict[str, Any]:
        """For a message."""
        return asdict(self)

    def with_cache(self) -> Setting:
        """This setting with the cache that this process uses now."""
        store = current()
        if store is None:
            return replace(self, cache=None)
        return replace(self, cache={**asdict(store), "folder": str(store.folder), "host": platform.node()})


def describe_setting(*, isolate: bool, share_device: bool) -> Setting:
    """The setting of this process."""
    import torch

    from kfpbench.registry import local_plugin_files

    plugins = []
    for path in local_plugin_files():
        try:
            content = path.read_bytes()
        except OSError as error:  # of another suite, and gone since; a cell that needs it will say so
            _log.warning("the plugin %s cannot be sent to other processes: %s", path, error)
            continue
        digest = hashlib.sha256(content).hexdigest()
        plugins.append({"path": str(path), "sha256": digest, "text": content.decode("utf-8")})
    return Setting(__version__, torch.get_num_threads(), isolate, share_device, plugins)


def adopt_setting(setting: Setting) -> None:
    """Make this process like the one that the setting describes.

    A plugin file is loaded from its own path where the same file is there, else from a copy. Raises CapabilityError for
    another version of kfpbench, PluginError for a plugin that does not load.
    """
    import torch

    from kfpbench.registry import load_plugin_file

    if setting.version != __version__:
        raise CapabilityError(
            "the worker has another version of kfpbench than the run",
            got=__version__,
            allowed=setting.version,
            remedy="Install the same version everywhere.",
        )
    torch.set_num_threads(setting.threads)
    for plugin in setting.plugins:
        content = plugin["text"].encode("utf-8")
        if hashlib.sha256(content).hexdigest() != plugin["sha256"]:
            raise PluginError("a plugin file has changed on its way", got=plugin["path"])
        path = Path(plugin["path"])
        if path.is_file() and path.read_bytes() == content:
            load_plugin_file(path)
            continue
        with tempfile.TemporaryDirectory(prefix="kfpbench-plugin-") as folder:
            copy = Path(folder) / path.name
            copy.write_bytes(content)
            load_plugin_file(copy)


def store_of(setting: Setting) -> Store | None:
    """The cache for the cells of a setting: the run's own where this is its host, else this machine's, by its rules.

    A folder of another host may be the same one, on a shared disk, or a stranger's: KFPBENCH_CACHE_DIR there decides.
    That cache is cut to its largest size first, for no command of this host does so. Raises ParameterError for a size
    that is none.
    """
    if setting.cache is None:
        return None
    told = {name: setting.cache[name] for name in ("refresh", "read_only", "worth", "largest")}
    if setting.cache["host"] == platform.node():
        return Store(Path(setting.cache["folder"]), **told)
    store = Store(cache_folder(), **told)
    store.prune(most_bytes=largest_size())
    return store
