"""Copy the scripts and styles that asv's site takes from the network into the site, so that it is seen without one.

    python suites/asv_tools/local_scripts.py .asv/html

They are Debian's copies: apt-get install libjs-jquery libjs-jquery-flot libjs-bootstrap libjs-jquery-stupidtable
node-blueimp-md5. What is not found there is named, and its address stays.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

DEBIAN = Path("/usr/share/javascript")
# Where below DEBIAN a file is, by its name in asv's page, whose versions are dropped; and the package that holds it.
COPIES = {
    "jquery.min.js": ("jquery", "libjs-jquery"),
    "jquery.flot.min.js": ("jquery-flot", "libjs-jquery-flot"),
    "jquery.flot.time.min.js": ("jquery-flot", "libjs-jquery-flot"),
    "jquery.flot.selection.min.js": ("jquery-flot", "libjs-jquery-flot"),
    "jquery.flot.categories.min.js": ("jquery-flot", "libjs-jquery-flot"),
    "stupidtable.min.js": ("jquery-stupidtable", "libjs-jquery-stupidtable"),
    "md5.min.js": ("blueimp-md5", "node-blueimp-md5"),
    "bootstrap.min.js": ("bootstrap/js", "libjs-bootstrap"),
    "bootstrap.min.css": ("bootstrap/css", "libjs-bootstrap"),
}
# For bar charts over parameters alone, and packaged by nobody: the page does without it.
OPTIONAL = ("jquery.flot.orderBars.js",)
FOLDER = "scripts"
# asv's page is made for Flot 0.8. Flot 3, which is Debian's, has axis labels of its own, over which asv's plugin would
# write its own, and leaves the ground of the legend to a style sheet, without which it is black.
_FLOT_3 = 'name:"axisLabels"'
_PLUGIN = re.compile(r'\s*<script\b[^>]*\bsrc="jquery\.flot\.axislabels\.js"[^>]*></script>')
_LEGEND = "<style>.legend .background { fill: #fff !important; fill-opacity: 0.85; }</style>\n"

_ELEMENT = re.compile(r'<(?:script|link)\b[^>]*?\b(?:src|href)="(https?://[^"]+)"[^>]*>')
_REMOTE = re.compile(
    r'\s(?:integrity|crossorigin|referrerpolicy|onerror)="[^"]*"'
)  # of the remote file, or its failure
_VERSION = re.compile(r"-\d+(?:\.\d+)+")


def localize(site: Path, source: Path = DEBIAN) -> list[str]:
    """Rewrite the addresses in ``site/index.html`` to copies in ``site/scripts``; returns those left, with a remedy.

    The element of an optional file is left too, but its failure to load no longer replaces the page by an error.
    Raises FileNotFoundError where the site is not there. A second call finds nothing to do.
    """
    page = site / "index.html"
    left = []

    def rewritten(match: re.Match[str]) -> str:
        element, address = match.group(0), match.group(1)
        name = _VERSION.sub("", address.rpartition("/")[2])
        if name in OPTIONAL:
            return _REMOTE.sub("", element)
        folder, package = COPIES.get(name, ("", ""))
        copy = source / folder / name
        if not package or not copy.is_file():
            left.append(f"{address} ({f'apt-get install {package}' if package else 'no known package'})")
            return element
        (site / FOLDER).mkdir(exist_ok=True)
        shutil.copy(copy, site / FOLDER / name)
        return _REMOTE.sub("", element.replace(address, f"{FOLDER}/{name}"))

    text = _ELEMENT.sub(rewritten, page.read_text(encoding="utf-8"))
    flot = site / FOLDER / "jquery.flot.min.js"
    if f'"{FOLDER}/{flot.name}"' in text and _LEGEND not in text and _FLOT_3 in flot.read_text(encoding="utf-8"):
        text = _PLUGIN.sub("", text).replace("</head>", f"{_LEGEND}</head>")
    page.write_text(text, encoding="utf-8")
    return left


def main(words: Sequence[str] | None = None) -> int:
    """Copy, and name what the site still takes from the network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("site", type=Path)
    site = parser.parse_args(words).site
    left = localize(site)
    for line in left:
        print(f"asv-publish: no local copy of {line}")
    print(f"asv-publish: {site} needs {'the network for these' if left else 'no network'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
