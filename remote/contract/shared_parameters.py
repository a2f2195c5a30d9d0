"""Parameters that several scenarios share: what they mean, their defaults and ranges are said once."""

from __future__ import annotations

from .parameters import Parameter

IMAGE_SIZE = Parameter(
    "image_size",
    0,
    "side in pixels of what the network sees; 0: what its weights were made for (a multiple of 32 suits most)",
    low=0,
    least=16,
    high=1024,
)
FRAMING = Parameter(
    "framing",
    "crop",
    "what the network sees of an image: crop is the middle square, whole is all of it, squeezed into a square",
    choices=("crop", "whole"),
)
BATCH_SIZE = Parameter("batch_size", 32, "images that pass through the network together", low=1, high=4096)
DECODE_WORKERS = Parameter(
    "decode_workers",
    0,
    "threads that decode images; 0: as many as there are cores, at most 16",
    low=0,
    high=128,
)
IMAGE_MEMORY_MB = Parameter(
    "image_memory_mb",
    0,
    "memory for decoded images, MB; what is more goes to a file. 0: half of what is free",
    low=0,
    high=10_000_000,
)
PRECISION = Parameter(
    "precision",
    "auto",
    "of the numbers in training: bf16 halves them; auto: bf16 where the device has instructions for it",
    choices=("auto", "fp32", "bf16"),
)
COMPILE = Parameter(
    "compile",
    "auto",
    "the passes of training compiled by torch; auto: on an NVIDIA GPU with a compiler, in a long run",
    choices=("auto", "on", "off"),
)

CACHE_GB = Parameter(
    "cache_gb",
    10.0,
    "features that the machine keeps for later runs, of all datasets together; 0: none",
    low=0.0,
    high=100_000.0,
)

# Of the scenarios that train layers step by step.
EPOCHS = Parameter(
    "epochs", 15, "passes over train, at most; early stopping may end it sooner", low=1, high=10_000
)
TRAIN_BATCH_SIZE = Parameter("batch_size", 64, "images per step", low=2, high=4096)
LEARNING_RATE = Parameter(
    "learning_rate",
    0.0,
    "of AdamW, at its highest: after the warm-up, before the cosine takes it down; 0: what suits the network",
    low=0.0,
    high=10.0,
)
WEIGHT_DECAY = Parameter(
    "weight_decay", 0.05, "of the weights; norms and biases have none", low=0.0, high=10.0
)
WARMUP_EPOCHS = Parameter(
    "warmup_epochs",
    1.0,
    "epochs (or parts of one) over which the rate rises; at most half of all",
    low=0.0,
    high=1000.0,
)
LABEL_SMOOTHING = Parameter(
    "label_smoothing", 0.0, "share of each label that is spread over all classes", low=0.0, high=0.9
)
MIXUP = Parameter(
    "mixup", 0.0, "how much images are blended in pairs, 0.2 is usual; 0: not at all", low=0.0, high=10.0
)
EMA_EPOCHS = Parameter(
    "ema_epochs",
    0.0,
    "epochs (or parts of one) over which the weights that are kept are averaged; 0: not at all",
    low=0.0,
    high=1000.0,
)
BALANCE = Parameter(
    "balance",
    "auto",
    "on: rare classes count as much as frequent ones; auto: where the largest has over 3 times the smallest",
    choices=("auto", "on", "off"),
)
AUGMENTATION = Parameter(
    "augmentation",
    "light",
    "what is done to a train image at random: light shifts and scales a little, strong crops widely; flips as the dataset allows",
    choices=("none", "light", "strong"),
)
STEERING_SHARE = Parameter(
    "holdout",
    0.1,
    "share of train that steers early stopping where val is the reported figure",
    low=0.01,
    high=0.5,
)
PATIENCE = Parameter(
    "patience", 5, "epochs without a better log-loss after which training stops", low=1, high=10_000
)

# Of the scenarios that leave the network as it is.
FROZEN = (
    BATCH_SIZE,
    DECODE_WORKERS,
    IMAGE_SIZE,
    FRAMING,
    Parameter(
        "views",
        1,
        "ways to look at each train image: 2 adds it turned over, where the dataset allows it, more add crops",
        low=1,
        high=32,
    ),
    Parameter(
        "stages",
        "",
        "modules after which the network is looked into, with commas between them; empty: the ends of its stages",
    ),
    CACHE_GB,
    Parameter(
        "folds",
        5,
        "of the cross-validation inside train that chooses the penalty",
        low=2,
        high=20,
    ),
    Parameter(
        "penalties",
        13,
        "how many penalties are tried, evenly spaced in their logarithm",
        low=1,
        high=100,
    ),
    Parameter(
        "penalty_max",
        10.0,
        "the strongest penalty (of the squared weights, beside the mean log-loss)",
        low=1e-12,
        high=1e6,
    ),
    Parameter("penalty_min", 1e-5, "the weakest penalty", low=1e-12, high=1e6),
    BALANCE,
    Parameter(
        "holdout_above",
        20_000,
        "with more train images than this, one holdout takes the place of the folds",
        low=100,
        high=10_000_000,
    ),
    Parameter(
        "refit",
        "auto",
        "auto: where test is the reported figure, the classifier that is kept is fitted on train and val; off: on train",
        choices=("auto", "off"),
    ),
)

# Of these, what also a classifier needs that training begins with.
CLASSIFIER = (
    "stages",
    "cache_gb",
    "folds",
    "penalties",
    "penalty_max",
    "penalty_min",
    "holdout_above",
)
