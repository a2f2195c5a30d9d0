"""L-BFGS for multinomial logistic regression: several problems on the same inputs at once, such as the folds.

The logits are linear in the weights, so a step along a direction costs one product with the inputs however often
the line is searched, and the search can be nearly exact. All in float64, on the processor: the same bits each time.
Nocedal & Wright, Numerical Optimization, chapter 7.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_MEMORY = 10  # steps that approximate the curvature
_SEARCHES = 20  # evaluations of one line search, at most
_TINY = 1e-300


@dataclass(frozen=True)
class Problem:
    """The mean log-loss over weighted rows, plus penalty / 2 × the squared weights without the bias.

    inputs      (rows, columns), the last column all ones: the bias
    labels      (rows,)
    weights     (rows, problems), each column sums to 1; 0 leaves a row out of a problem
    classes     how many
    """

    inputs: Tensor
    labels: Tensor
    weights: Tensor
    classes: int

    def start(self) -> Tensor:
        """Weights of nothing learned: (columns, problems, classes)."""
        return self.inputs.new_zeros(self.inputs.shape[1], self.weights.shape[1], self.classes)

    def product(self, theta: Tensor) -> Tensor:
        """(rows, problems, classes)"""
        return (self.inputs @ theta.flatten(1)).view(-1, *theta.shape[1:])

    def gradient(self, theta: Tensor, logits: Tensor, penalty: float) -> Tensor:
        residual = logits.softmax(-1)
        residual[torch.arange(len(self.labels)), :, self.labels] -= 1
        residual *= self.weights.unsqueeze(-1)
        gradient = (self.inputs.T @ residual.flatten(1)).view_as(theta)
        gradient[:-1] += penalty * theta[:-1]
        return gradient


def minimise(
    problem: Problem, penalty: float, start: Tensor, *, tolerance: float = 1e-6, iterations: int = 500
) -> tuple[Tensor, Tensor]:
    """The weights (columns, problems, classes) and logits (rows, problems, classes) of the least value.

    tolerance   of the largest number of the gradient
    """
    theta, logits = start.clone(), problem.product(start)
    gradient = problem.gradient(theta, logits, penalty)
    history: deque[tuple[Tensor, Tensor]] = deque(maxlen=_MEMORY)
    for _ in range(iterations):
        active = gradient.abs().amax((0, 2)) > tolerance
        if not active.any():
            break
        direction = _direction(gradient, history)
        along = problem.product(direction)
        length = _line_search(problem, penalty, theta, logits, gradient, direction, along) * active
        step = length[:, None] * direction
        theta += step
        logits += length[:, None] * along
        previous, gradient = gradient, problem.gradient(theta, logits, penalty)
        history.append((step, gradient - previous))
    return theta, logits


def _direction(gradient: Tensor, history: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Downhill, by the two loops over the last steps and changes of the gradient."""
    pairs = [(step, change, _inverse(_dot(step, change))) for step, change in history]
    result = -gradient
    shares = []
    for step, change, rho in reversed(pairs):
        share = rho * _dot(step, result)
        result = result - share[:, None] * change
        shares.append(share)
    if pairs:
        step, change, rho = pairs[-1]
        scale = torch.where(rho > 0, _inverse(rho * _dot(change, change)), 1.0)
        result = scale[:, None] * result
    for (step, change, rho), share in zip(pairs, reversed(shares), strict=True):
        result = result + (share - rho * _dot(change, result))[:, None] * step
    return result


def _line_search(
    problem: Problem,
    penalty: float,
    theta: Tensor,
    logits: Tensor,
    gradient: Tensor,
    direction: Tensor,
    along: Tensor,
) -> Tensor:
    """How far to go, for each problem: Newton's method on the line's slope, kept inside the bracket of its sign.

    Ends where the slope has fallen to a third, which is the strong Wolfe condition: the value is convex, so there
    it has fallen too.
    """
    rows = torch.arange(len(problem.labels))
    of_label = along[rows, :, problem.labels]
    crossing, square = (
        penalty * _dot(theta[:-1], direction[:-1]),
        penalty * _dot(direction[:-1], direction[:-1]),
    )
    first = _dot(gradient, direction)
    length = torch.ones_like(first)
    low, high = torch.zeros_like(first), torch.full_like(first, torch.inf)
    for _ in range(_SEARCHES):
        shares = (logits + length[:, None] * along).softmax(-1) * along
        mean = shares.sum(-1)
        slope = (problem.weights * (mean - of_label)).sum(0) + crossing + length * square
        if (slope.abs() <= first.abs() / 3).all():
            break
        curvature = (problem.weights * ((shares * along).sum(-1) - mean * mean)).sum(0) + square
        low, high = torch.where(slope < 0, length, low), torch.where(slope < 0, high, length)
        newton = length - slope / curvature.clamp(min=_TINY)
        halfway = torch.where(high.isinf(), 4 * length, (low + high) / 2)
        length = torch.where((newton > low) & (newton < high), newton, halfway)
    return length


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """(problems,)"""
    return (one * other).sum((0, 2))


def _inverse(value: Tensor) -> Tensor:
    """1 / value; 0 where there is nothing to divide by: a problem that has already arrived."""
    return torch.where(value > _TINY, 1 / value.clamp(min=_TINY), 0.0)
