"""sample.html: some train images as the network sees them, to be looked at before a figure is believed.

One file without any script and without anything from elsewhere. Names come from the user's disk, so everything that
is not ours is escaped.
"""

from __future__ import annotations

import base64
import html
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import torch
from PIL import Image as Pillow
from torch import Tensor

from remote.contract import document
from remote.contract.dataset_manifest import Image
from remote.images.preprocessing import Pixels, Preprocessing

FILE = "sample.html"
IMAGES_MAX = 24
_LOSSLESS_SIDE = 96  # pixels: larger ones are JPEG, so that the page stays below about 1 MB


@dataclass(frozen=True)
class Sample:
    """One train image: as the network sees it when it is measured, and as it was seen in training."""

    image: Image
    plain: Pixels
    augmented: Pixels | None = None


def write(
    result: Path, *, title: str, spec: Preprocessing, augmentation: str, samples: Sequence[Sample]
) -> None:
    """The page, into the folder of the result.

    augmentation    in words; "" when there is none
    """
    result.mkdir(parents=True, exist_ok=True)
    document.write_text(result / FILE, page(title, spec, augmentation, samples))


def page(title: str, spec: Preprocessing, augmentation: str, samples: Sequence[Sample]) -> str:
    side = max(112, min(224, spec.crop))
    seen = f"Each is turned by EXIF; {spec.text}."
    if augmentation:
        seen += f" Left: as it is measured. Right: as it was seen in the first epoch ({augmentation})."
    return _PAGE.format(
        title=_text(title),
        seen=_text(seen),
        count=len(samples),
        side=side,
        wide=2 * side + 4 if augmentation else side,
        rendering="pixelated" if spec.crop <= _LOSSLESS_SIDE else "auto",
        figures="\n".join(map(_figure, samples)),
    )


def as_pixels(spec: Preprocessing, inputs: Tensor) -> list[Pixels]:
    """What the network is given, (n, 3, height, width), as images again."""
    given = inputs.detach().float().cpu()
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (spec.mean, spec.std))
    values = ((given * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    return list(np.ascontiguousarray(values.permute(0, 2, 3, 1).numpy()))


def _figure(sample: Sample) -> str:
    seen = [sample.plain] if sample.augmented is None else [sample.plain, sample.augmented]
    name = _text(unquote(sample.image.path, errors="replace"))
    pictures = "".join(f'<img src="{_data(pixels)}" alt="{name}">' for pixels in seen)
    label = _text(sample.image.class_name)
    return f"<figure>{pictures}<figcaption><b><bdi>{label}</bdi></b> <bdi>{name}</bdi></figcaption></figure>"


def _data(pixels: Pixels) -> str:
    stream = io.BytesIO()
    picture = Pillow.fromarray(pixels)
    if max(pixels.shape[:2]) <= _LOSSLESS_SIDE:
        picture.save(stream, "PNG", optimize=True)
        kind = "png"
    else:
        picture.save(stream, "JPEG", quality=88, subsampling=0)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _text(text: str) -> str:
    """Escaped, and without characters that move others about."""
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text
    )
    return html.escape(shown)


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 74rem; padding: 0 1rem; }}
h1 {{ font-size: 1.35rem; margin-bottom: .2rem; }}
main {{ display: flex; flex-wrap: wrap; gap: 1.2rem; margin-top: 1.5rem; }}
figure {{ display: flex; flex-wrap: wrap; gap: 4px; margin: 0; width: {wide}px; }}
img {{ width: {side}px; height: {side}px; image-rendering: {rendering}; border-radius: 3px; }}
figcaption {{ width: 100%; font-size: .8rem; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{count} train images as the network sees them. {seen}</p>
<main>
{figures}
</main>
</body>
</html>
"""
