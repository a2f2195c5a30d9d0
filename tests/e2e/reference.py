"""What a practitioner gets with scikit-learn on the same features: written without any code of tlvm's training."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from remote.torchvision_guard import models


@functools.cache
def reference_correct(data: Path, weights: Path) -> int:
    """How many images of `val` logistic regression gets right on pooled squeezenet1_1 features.

    The penalty is chosen by cross-validation inside `train`; `val` is looked at once.
    """
    network = models.squeezenet1_1()
    network.load_state_dict(torch.load(weights, weights_only=True))
    network.eval()
    torch.set_num_threads(1)  # threads that spin make a busy machine ten times slower
    preprocess = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    features, labels = {}, {}
    for split in ("train", "val"):
        rows, names = [], []
        for file in sorted((data / split).glob("*/*.jpg")):
            image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
            with torch.inference_mode():
                maps = network.features(preprocess(image).unsqueeze(0))
            rows.append(maps.mean(dim=(2, 3)).squeeze(0).numpy())
            names.append(file.parent.name)
        features[split], labels[split] = np.stack(rows), np.array(names)
    model = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=np.logspace(-6, 1, 15),
            cv=5,
            l1_ratios=(0,),
            scoring="accuracy",
            max_iter=2000,
            use_legacy_attributes=False,
        ),
    )
    model.fit(features["train"], labels["train"])
    return int((model.predict(features["val"]) == labels["val"]).sum())
