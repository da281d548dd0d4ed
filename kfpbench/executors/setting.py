"""What a process needs besides its cells, to compute what this one would: threads, plugins, rules."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kfpbench import __version__
from kfpbench.errors import CapabilityError, PluginError


@dataclass(frozen=True)
class Setting:
    """Plain values; made by the owner of the run.

    ``threads`` are torch's: another number changes the rounding of sums. ``plugins`` are the local plugin files that
    are loaded, with path, text and SHA-256. ``gpu`` is what CUDA_VISIBLE_DEVICES is set to, if anything.
    """

    version: str
    threads: int
    isolate: bool
    share_device: bool
    plugins: list[dict[str, str]] = field(default_factory=list)
    gpu: str | None = None

    def as_plain(self) -> dict[str, Any]:
        """For a message."""
        return asdict(self)


def describe_setting(*, isolate: bool, share_device: bool) -> Setting:
    """The setting of this process."""
    import torch

    from kfpbench.registry import local_plugin_files

    plugins = []
    for path in local_plugin_files():
        content = path.read_bytes()
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
