"""The result of a run, in files that explain themselves.

model/model.safetensors   the network: loads straight into torchvision's, built for this number of classes
model/model.json          what else is needed to use it: ModelCard below
model/README.md           how to load it, in ten lines
metrics.json              remote.contract.metrics
predictions.csv           path, split, label, predicted, p_<class> ... of each image that was not trained on
sample.html               some train images as the network sees them (remote.results.sample_page)
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from remote.contract import document
from remote.contract.dataset_manifest import Image
from remote.contract.metrics import Metrics
from remote.images.preprocessing import Preprocessing
from remote.measures.evaluation import Floats, probabilities
from remote.networks.backbones import Network
from remote.networks.weights import METADATA_KEY
from remote.sources import source_of

SCHEMA = 1
DIGITS = 6  # of probabilities


@dataclass(frozen=True)
class ModelCard:
    """model.json: all that is needed to use model.safetensors, and where it comes from."""

    model: str  # of torchvision
    arguments: dict[str, Any]  # for its builder, besides num_classes
    classes: list[str]  # the index is the output
    preprocessing: Preprocessing
    intensity_window: list[float] | None  # of 16-bit and float images: what becomes black and white
    temperature: float  # logits are divided by it
    weights: str  # what the training began with: "ImageNet V1", "none"
    weights_sha256: str
    dataset: str
    dataset_version: str
    scenario: str
    run_id: str
    tlvm_version: str
    # Modules that the classifier looks at; none: its own head does.
    stages: list[str] = field(default_factory=list)
    pooling: str = ""  # what of their channels: "mean", "mean and deviation"
    schema: int = field(default=SCHEMA)


@dataclass(frozen=True)
class Predicted:
    """The images of one split and what the network says of them."""

    images: Sequence[Image]
    logits: Floats  # before the temperature


def write(
    result: Path, network: Network, card: ModelCard, metrics: Metrics, predicted: Sequence[Predicted]
) -> None:
    """All files of a result, below `result`."""
    folder = result / "model"
    folder.mkdir(parents=True, exist_ok=True)
    _write_network(folder / "model.safetensors", network, card)
    document.write(folder / "model.json", card)
    document.write_text(folder / "README.md", readme(card, metrics))
    document.write(result / "metrics.json", metrics)
    document.write_text(result / "predictions.csv", predictions_csv(card, predicted))


def read_card(folder: Path) -> ModelCard:
    """model.json of a model folder. ContractError, OSError when it is not one."""
    return read_card_file(folder / "model.json")


def read_card_file(path: Path) -> ModelCard:
    """The same, of a file of any name."""
    return document.decode(ModelCard, path.read_bytes(), what=f"{path.parent.name}/model.json")


def predictions_csv(card: ModelCard, predicted: Sequence[Predicted]) -> str:
    """Paths stand as in the manifest, percent-encoded, so that any name survives."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["path", "split", "label", "predicted", *(f"p_{name}" for name in card.classes)])
    for part in predicted:
        for image, shares in zip(part.images, probabilities(part.logits, card.temperature), strict=True):
            said = card.classes[int(shares.argmax())]
            rows.writerow(
                [image.path, image.split, image.class_name, said, *(f"{p:.{DIGITS}f}" for p in shares)]
            )
    return text.getvalue()


def readme(card: ModelCard, metrics: Metrics) -> str:
    figures = metrics.result
    low, high = figures.accuracy_interval
    source = source_of(card.model)
    brought, built = source.loading(card.model)
    return (_README_STAGES if card.stages else _README).format(
        model=card.model,
        head_path=source.head_path(card.model),
        brought=brought,
        built=built,
        resize='[see["crop"]] * 2' if card.preprocessing.framing == "whole" else 'see["resize"]',
        load=_LOAD_MNASNET if card.model.startswith("mnasnet") else _LOAD,
        classes=", ".join(card.classes),
        dataset=card.dataset,
        version=card.dataset_version[:12],
        scenario=card.scenario,
        weights=card.weights,
        accuracy=figures.accuracy,
        correct=figures.correct,
        n=figures.n,
        split=figures.split,
        chose=figures.chose,
        low=low,
        high=high,
        cut_short=f"\nIts hours were over {metrics.cut_short}." if metrics.cut_short else "",
    )


def _write_network(path: Path, network: Network, card: ModelCard) -> None:
    """One metadata entry only: safetensors keeps several in no fixed order, and equal runs must give equal files."""
    about = {
        "model": card.model,
        "classes": card.classes,
        "preprocessing": asdict(card.preprocessing),
        "intensity_window": card.intensity_window,
    }
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in network.module.state_dict().items()
    }
    beside = path.with_name(f".{path.name}")
    save_file(tensors, beside, metadata={METADATA_KEY: json.dumps(about, sort_keys=True)})
    beside.chmod(0o644)
    beside.replace(path)


_README = """# {model}: {classes}

Trained by `tlvm run {scenario}` on {dataset} {version}, beginning with {weights} weights.
Accuracy {accuracy:.3f} ({correct} of {n}; 95 %: {low:.3f} to {high:.3f}) on {split}, whose images chose {chose}.{cut_short}

```python
import json
from PIL import Image, ImageOps
from safetensors.torch import load_file
{brought}
from torchvision import transforms as t

card = json.load(open("model.json", encoding="utf-8"))
network = {built}.eval()
{load}
see = card["preprocessing"]
resize = t.Resize({resize}, t.InterpolationMode(see["interpolation"]))
prepare = t.Compose([resize, t.CenterCrop(see["crop"]), t.ToTensor(), t.Normalize(see["mean"], see["std"])])
image = prepare(ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB"))
print(dict(zip(card["classes"], (network(image[None]) / card["temperature"]).softmax(1)[0].tolist())))
```

The snippet is for 8-bit photos; `tlvm predict` also takes transparent, 16-bit and other awkward images as training
did. The temperature makes probabilities honest; it changes no decision.
"""

# For a classifier on stages: the same, with what the stages see in the place of the network's own head.
_README_STAGES = (
    _README.replace(
        """network = {built}.eval()
{load}
""",
        """network = {built}.eval()
network.set_submodule("{head_path}", torch.nn.Identity())
tensors, means, deviations = load_file("model.safetensors"), {{}}, {{}}
weight, bias = tensors.pop("stages_head.weight"), tensors.pop("stages_head.bias")
network.load_state_dict(tensors)
for name in card["stages"]:
    def look(module, given, seen, name=name):
        some = seen[:, :, :: max(1, seen.shape[2] // 28), :: max(1, seen.shape[3] // 28)]
        means[name], deviations[name] = seen.mean((2, 3)), some.std((2, 3), correction=0)
    network.get_submodule(name).register_forward_hook(look)
""",
    )
    .replace(
        """print(dict(zip(card["classes"], (network(image[None])""",
        """network(image[None])
seen = [*means.values(), *(deviations.values() if card["pooling"] != "mean" else [])]
logits = torch.cat(seen, 1) @ weight.T + bias
print(dict(zip(card["classes"], (logits""",
    )
    .replace("import json\n", "import json\nimport torch\n", 1)
)

_LOAD = 'network.load_state_dict(load_file("model.safetensors"))'
# MNASNet asks for the version of what it is given, which a safetensors file does not have.
_LOAD_MNASNET = 'network.load_state_dict(network.state_dict().__ior__(load_file("model.safetensors")))'
