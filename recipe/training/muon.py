"""Muon's step for matrices and convolutions, and AdamW's for embeddings, norms and biases.

Jordan et al., "Muon", 2024; the factor that lets both share a learning rate is from Liu et al.,
"Muon is Scalable for LLM Training", 2025, section 2.2.
"""

from __future__ import annotations

import torch

from recipe.training.precision import compute_dtype

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 4
_MOMENTUM = 0.95
_BETAS = (0.9, 0.98)
_EPSILON = 1e-8
_LEAST_SIDE = 16


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """The nearest matrix with orthonormal rows or columns, roughly, by Newton-Schulz steps."""
    a, b, c = _COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(compute_dtype(matrix.device))
    x = x / (x.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).float()


def is_matrix(name: str, weight: torch.Tensor) -> bool:
    """Whether a parameter is a hidden matrix, which Muon moves."""
    sides = (len(weight), weight[0].numel()) if weight.ndim >= 2 else (0, 0)
    return min(sides) >= _LEAST_SIDE and "embedding.weight" not in name


def move_matrix(
    weight: torch.Tensor, gradient: torch.Tensor, momentum: torch.Tensor, rate: float
) -> None:
    """One step of Muon; changes the weight and the momentum in place."""
    momentum.lerp_(gradient, 1 - _MOMENTUM)
    ahead = gradient.lerp(momentum, _MOMENTUM)
    update = orthogonal(ahead.reshape(len(ahead), -1)).view(ahead.shape)
    scale = 0.2 * max(len(ahead), ahead[0].numel()) ** 0.5
    weight.add_(update, alpha=-rate * scale)


def move_other(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    moments: tuple[torch.Tensor, torch.Tensor],
    rate: float,
    step: int,
) -> None:
    """One step of Adam, the first having number 1; changes weight and moments in place."""
    mean, square = moments
    mean.lerp_(gradient, 1 - _BETAS[0])
    square.lerp_(gradient.square(), 1 - _BETAS[1])
    deviation = (square / (1 - _BETAS[1] ** step)).sqrt() + _EPSILON
    weight.addcdiv_(mean, deviation, value=-rate / (1 - _BETAS[0] ** step))
