"""Small positive matrices, factored so that a batch's company changes no bit.

LAPACK's and BLAS's kernels on a CPU round by a matrix's place in memory modulo 16 bytes. Matrices of an even
side all begin alike; those of an odd side are given one unknown more, which nothing ties to the others.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def factor(matrix: Tensor) -> Tensor:
    """Return Cholesky factors of (n, side, side) matrices; their side is even."""
    odd = matrix.shape[-1] % 2
    if odd:
        matrix = functional.pad(matrix, (0, 1, 0, 1))
        matrix[:, -1, -1] = 1.0
    factors: Tensor = torch.linalg.cholesky_ex(matrix).L
    return factors


def solve(factors: Tensor, right: Tensor) -> Tensor:
    """Solve for (n, side) right sides of the matrices that were factored."""
    side = right.shape[1]
    padded = functional.pad(right, (0, factors.shape[-1] - side))
    return torch.cholesky_solve(padded[:, :, None], factors)[:, :side, 0]


def inverse(factors: Tensor, side: int) -> Tensor:
    """Return the inverses of the matrices that were factored, (n, side, side)."""
    return torch.cholesky_inverse(factors)[:, :side, :side]
