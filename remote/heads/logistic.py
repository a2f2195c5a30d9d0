"""A new classifier on fixed features: multinomial logistic regression, its penalty chosen inside train.

Features are standardised, a path of penalties is walked from strong to weak, each fit starting from the one before,
and the penalty whose held-out images have the least log-loss is taken. (Not the simplest within one standard error:
a stronger penalty makes no smaller classifier, only a less certain one.) Then all of train is fitted, and the
standardisation is folded into the weights, so that what remains is one linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from remote.errors import Stopped
from remote.heads.folds import NEVER
from remote.heads.lbfgs import Problem, minimise
from remote.measures.evaluation import Floats, Labels, fit_temperature, log_losses

_PATIENCE = 3  # penalties in a row that are worse than the best one before the path ends
_PATH_TOLERANCE = 1e-5  # of the fits that are only compared; the last one is ten times closer
_ROUGH_TOLERANCE = 3e-4
_ONE_THREAD = 200_000_000  # multiplications below which a second thread costs more than it brings
_BLOCK_BYTES = 64 * 1024 * 1024  # of logits: so many folds are fitted at once


@dataclass(frozen=True)
class Candidate:
    """One penalty, judged by images that its fits had not seen."""

    penalty: float
    log_loss: float
    accuracy: float


@dataclass(frozen=True)
class LinearHead:
    """logits = features @ weight.T + bias"""

    weight: Tensor  # float32, (classes, features)
    bias: Tensor  # float32, (classes,)
    penalty: float
    candidates: list[Candidate]  # in the order in which they were tried
    folds: int  # 1: a holdout
    accuracy: float  # of held-out images of train
    accuracy_error: float  # its standard error
    temperature: float  # from the same held-out logits
    held_out: NDArray[np.bool_]  # rows that were held out once
    held_out_logits: Floats  # of those rows, in their order

    def logits(self, features: NDArray[np.float32]) -> Floats:
        weight, bias = self.weight.double().numpy(), self.bias.double().numpy()
        return np.asarray(features.astype(np.float64) @ weight.T + bias)


@dataclass(frozen=True)
class _Inputs:
    """Standardised features, turned into as few columns as they have rows, and the way back."""

    values: Tensor  # (rows, columns + 1), the last one all ones, or zeros where there is no bias
    mean: Tensor
    std: Tensor
    turn: Tensor | None  # (features, columns); None: not turned


def fit(
    features: NDArray[np.float32],
    labels: Labels,
    fold_of: NDArray[np.int64],
    penalties: Sequence[float],
    *,
    classes: int,
    bias: bool = True,
    judges: NDArray[np.bool_] | None = None,
    weights: Floats | None = None,
    roughly: bool = False,
    on_fit: Callable[[int], None] = lambda done: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> LinearHead:
    """The classifier of the penalty that serves held-out images best.

    features    (n, features)
    fold_of     the fold in which each image is held out, NEVER for none
    penalties   of the squared weights, beside the mean log-loss; the strongest first
    bias        False: there is none, and features keep their mean, which only a bias could take away
    judges      of the held-out rows, those whose log-loss counts; None: all. Further views of an image do not
    weights     of the rows: how much each counts, in the fits, for the penalty and for the temperature; None: all the same
    roughly     only the figures are wanted, near enough to compare features: a coarse path, which ends at the first
                penalty that is worse, and no last fit: weight and bias are those of one fold
    """
    held_out = (fold_of != NEVER) if judges is None else (fold_of != NEVER) & judges
    inputs, targets = _inputs(features, bias), torch.from_numpy(labels)
    weights = np.ones(len(labels)) if weights is None else weights
    everything = Problem(inputs.values, targets, torch.from_numpy(weights / weights.sum())[:, None], classes)
    small = inputs.values.numel() * classes * (int(fold_of.max()) + 1) < _ONE_THREAD
    with _threads(1 if small else torch.get_num_threads()):
        candidates, logits, start = _path(
            inputs, targets, fold_of, held_out, weights, penalties, classes, roughly, on_fit, should_stop
        )
        best = min(candidates, key=lambda candidate: candidate.log_loss)
        theta = start if roughly else minimise(everything, best.penalty, start)[0]
        weight, offset = _unfolded(inputs, theta[:, 0])
    return LinearHead(
        weight=weight,
        bias=offset,
        penalty=best.penalty,
        candidates=candidates,
        folds=len(set(fold_of[held_out].tolist())),
        accuracy=best.accuracy,
        accuracy_error=float(np.sqrt(best.accuracy * (1 - best.accuracy) / held_out.sum())),
        temperature=fit_temperature(logits, labels[held_out], weights[held_out]),
        held_out=held_out,
        held_out_logits=logits,
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _path(
    inputs: _Inputs,
    targets: Tensor,
    fold_of: NDArray[np.int64],
    judging: NDArray[np.bool_],
    row_weights: Floats,
    penalties: Sequence[float],
    classes: int,
    roughly: bool,
    on_fit: Callable[[int], None],
    should_stop: Callable[[], bool],
) -> tuple[list[Candidate], Floats, Tensor]:
    """The penalties that were tried, the held-out logits of the best one, and where to start its last fit."""
    groups = [
        Problem(inputs.values, targets, weights, classes)
        for weights in _weights(fold_of, row_weights, classes)
    ]
    starts = [problem.start() for problem in groups]
    held_out = torch.from_numpy(judging)
    labels = targets[held_out].numpy()
    tolerance, patience = (_ROUGH_TOLERANCE, 1) if roughly else (_PATH_TOLERANCE, _PATIENCE)
    candidates: list[Candidate] = []
    best_logits, best_start, best_loss = np.empty(0), starts[0][:, :1], np.inf
    for number, penalty in enumerate(penalties, 1):
        held_out_logits = torch.zeros(len(targets), classes, dtype=torch.float64)
        for index, problem in enumerate(groups):
            if should_stop():
                raise Stopped("while the classifier was fitted")
            starts[index], logits = minimise(problem, penalty, starts[index], tolerance=tolerance)
            left_out = (problem.weights == 0).double()
            held_out_logits += (logits * left_out.unsqueeze(-1)).sum(1)
        logits_array = held_out_logits[held_out].numpy()
        loss = float(np.average(log_losses(logits_array, labels), weights=row_weights[judging]))
        candidates.append(Candidate(penalty, loss, float((logits_array.argmax(1) == labels).mean())))
        on_fit(number)
        if loss < best_loss:
            best_loss, best_logits, best_start = loss, logits_array, starts[0][:, :1].clone()
        elif all(candidate.log_loss > best_loss for candidate in candidates[-patience:]):
            break
    return candidates, best_logits, best_start


def _weights(fold_of: NDArray[np.int64], row_weights: Floats, classes: int) -> list[Tensor]:
    """The weights of the rows in each fold's training part, (rows, folds), in groups that fit into memory."""
    folds = sorted(set(fold_of.tolist()) - {NEVER})
    columns = np.stack([row_weights * (fold_of != fold) for fold in folds], axis=1)
    weights = torch.from_numpy(columns / columns.sum(0))
    together = max(1, _BLOCK_BYTES // (8 * len(fold_of) * classes))
    return [weights[:, start : start + together] for start in range(0, len(folds), together)]


def _inputs(features: NDArray[np.float32], bias: bool) -> _Inputs:
    """A penalty on squared weights does not care how features are turned, so wide ones are turned into narrow ones.

    With 244 images of 4,096 features, 244 columns say the same, and each fit costs a seventeenth.
    """
    values = torch.from_numpy(features).double()
    mean, std = values.mean(0) * bias, values.std(0, correction=0)
    std[std == 0] = 1.0
    values -= mean
    values /= std
    turn = None
    if 2 * values.shape[0] <= values.shape[1]:
        turn, triangle = torch.linalg.qr(values.T)
        values = triangle.T
    last = torch.full((len(values), 1), float(bias), dtype=torch.float64)
    return _Inputs(torch.cat([values, last], dim=1), mean, std, turn)


def _unfolded(inputs: _Inputs, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (classes, features) and bias (classes,) for features as they come out of the network."""
    weight = theta[:-1] if inputs.turn is None else inputs.turn @ theta[:-1]
    weight = weight / inputs.std[:, None]
    bias = theta[-1] - inputs.mean @ weight
    return weight.T.float().contiguous(), bias.float()
