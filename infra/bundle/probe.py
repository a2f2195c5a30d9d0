"""Piped to `python3 -` on a machine: which Python it has and what that can import, as one line of JSON.

Python 3.8 and standard library only. Nothing heavy is imported: finding a module is enough, and takes no seconds.
"""

import importlib.util
import json
import platform
import sys
from importlib import metadata
from pathlib import Path

DISTRIBUTIONS = {  # the name in `import`, the name of what provides it
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "PIL": "pillow",
    "safetensors": "safetensors",
    "google_crc32c": "google-crc32c",
    "google.cloud.storage": "google-cloud-storage",
}


def version(module, distribution):
    """ "" when it can be imported but does not say its version, None when it can't be imported."""
    try:
        if importlib.util.find_spec(module) is None:
            return None
    except (ImportError, AttributeError, ValueError):
        return None
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def installed_bundles():
    return sorted(path.parent.name for path in Path.home().glob(".tlvm/bundles/*/READY"))


modules = {module: version(module, name) for module, name in DISTRIBUTIONS.items()}
about = {
    "python": list(sys.version_info[:2]),
    "implementation": sys.implementation.name,
    "executable": sys.executable,
    "system": platform.system(),
    "machine": platform.machine(),
    "libc": list(platform.libc_ver()),
    "modules": {module: found for module, found in modules.items() if found is not None},
    "bundles": installed_bundles(),
}
print(json.dumps(about))
