"""The papers' formulas in NumPy, float64: what each quantizer must return and pull back.

Every function takes ``x``, the upstream gradient ``g`` and the method's numbers, and returns
``(value, dx)`` or ``(value, dx, dparameter, ...)``, where ``dx`` is the gradient of
``(g * value).sum()`` under the method's rule. Written from the formulas, sharing no code with
the library.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

Array = np.ndarray


def s(x: Array) -> Array:
    return np.where(x >= 0, 1.0, -1.0)


def rows(x: Array, per_row: Array) -> Array:
    """One number per channel of axis 0, laid over x."""
    return np.reshape(per_row, (-1,) + (1,) * (x.ndim - 1))


def row_mean(x: Array) -> Array:
    return rows(x, x.reshape(len(x), -1).mean(1))


# Slopes of the binary estimators.


def clip_slope(x: Array, c: float = 1.0) -> Array:
    return np.where(np.abs(x) <= c, 1.0, 0.0)


def approx_slope(x: Array) -> Array:
    return np.where(np.abs(x) <= 1, 2 - 2 * np.abs(x), 0.0)


def swish_slope(x: Array, beta: float = 5.0) -> Array:
    return beta * (2 - beta * x * np.tanh(beta * x / 2)) / (1 + np.cosh(beta * x))


def geometric(fraction: float, first: float, last: float) -> float:
    """10^(lg first + fraction (lg last - lg first)): how t of EDE and of RBNN moves."""
    return 10 ** (math.log10(first) + fraction * (math.log10(last) - math.log10(first)))


def ede_slope(x: Array, fraction: float, t_min: float = 1e-3, t_max: float = 10.0) -> Array:
    t = geometric(fraction, t_min, t_max)
    return max(1 / t, 1.0) * t * (1 - np.tanh(t * x) ** 2)


def reste_slope(
    x: Array, fraction: float, t: float = 1.5, eps: float = 0.1, o_end: float = 3.0
) -> Array:
    o = 1 + (1 - math.cos(math.pi * fraction / 2)) * (o_end - 1)
    a = np.abs(x)
    out = np.zeros_like(x)
    middle = (a > eps) & (a <= t)
    out[middle] = a[middle] ** ((1 - o) / o) / o
    out[a <= eps] = eps ** (1 / o) / eps
    return out


def rbnn_slope(
    x: Array, fraction: float, activations: bool, t_min: float = 1e-2, t_max: float = 10.0
) -> Array:
    t = geometric(fraction, t_min, t_max)
    k = max(1 / t, 1.0)
    if activations:
        k, t = 1.0, max(t, 1.0)
    return np.maximum(0, k * (math.sqrt(2) * t - t**2 * np.abs(x)))


def elastic_sign(x: Array, g: Array, alpha: float) -> tuple[Array, Array, Array]:
    inside = np.abs(x / alpha) <= 1
    return alpha * s(x), g * inside, np.sum(g * s(x)) / math.sqrt(x.size)


# Binary weights.


def magnitude(w: Array, g: Array, slope: Array, scale_gradient: bool) -> tuple[Array, Array]:
    a = row_mean(np.abs(w))
    return a * s(w), g * slope * (a if scale_gradient else 1.0)


def xnor(w: Array, g: Array, grad: str, center: bool = True) -> tuple[Array, Array]:
    """Without the factors (1 - 1/Cin) and n that the code's gradients carry as well."""
    n = w[0].size
    if center:
        w = w - w.mean(1, keepdims=True)
    w = np.clip(w, -1, 1)
    a = row_mean(np.abs(w))
    if grad == "paper":
        return a * s(w), g * (1 / n + a * (np.abs(w) < 1))
    return a * s(w), a * g * (np.abs(w) <= 1) + s(w) * row_mean(g * s(w))


def standardised(w: Array, pull: Array, eps: float = 0.0) -> tuple[Array, Array]:
    """(w - mean) / std per filter (n - 1 in the std), and ``pull`` taken back through it."""
    n = w[0].size
    centred = w - row_mean(w)
    std = np.sqrt(row_mean(centred**2) * n / (n - 1) + eps)
    z = centred / std
    pull = pull - row_mean(pull)
    return z, (pull - z * row_mean(pull * z) * n / (n - 1)) / std


def libra(w: Array, g: Array, slope: object) -> tuple[Array, Array]:
    z, _ = standardised(w, g)
    scale = 2.0 ** np.round(np.log2(row_mean(np.abs(z))))
    return scale * s(z), standardised(w, g * scale * slope(z))[1]  # type: ignore[operator]


def recu(w: Array, g: Array, tau: float) -> tuple[Array, Array]:
    factor = 2 * math.sqrt(2)
    z = factor * standardised(w, g, eps=1e-5)[0]
    q = -np.mean(np.abs(z)) * math.log(2 - 2 * tau)
    inside = np.abs(z) <= q
    return s(np.clip(z, -q, q)), factor * standardised(w, g * inside, eps=1e-5)[1]


def siman(w: Array, g: Array) -> tuple[Array, Array]:
    """+1 for the larger half of |z| of each filter; the gradient is that of |z|."""
    z, _ = standardised(w, g, eps=1e-5)
    flat = np.abs(z).reshape(len(w), -1)
    value = -np.ones_like(flat)
    for row, sizes in zip(value, flat, strict=True):
        row[np.argsort(-sizes, kind="stable")[: len(sizes) // 2]] = 1
    return value.reshape(w.shape), standardised(w, g * np.sign(z), eps=1e-5)[1]


def adabin_weight(w: Array, g: Array, slope: object) -> tuple[Array, Array]:
    """alpha s((w - beta) / alpha) + beta, differentiated through alpha and beta too."""
    n = w[0].size
    beta = row_mean(w)
    alpha = np.sqrt(row_mean((w - beta) ** 2))
    z = (w - beta) / alpha
    gz = g * alpha * slope(z)  # type: ignore[operator]
    galpha = n * row_mean(g * s(z)) - n * row_mean(gz * z) / alpha
    gbeta = n * row_mean(g) - n * row_mean(gz) / alpha
    return alpha * s(z) + beta, gz / alpha + galpha * z / n + gbeta / n


def adabin_input(
    x: Array, g: Array, alpha: float, beta: float, form: str
) -> tuple[Array, Array, Array, Array]:
    z = (x - beta) / alpha
    b, slope = s(z), approx_slope(z)
    if form == "paper":
        value = alpha * b + beta
        dalpha, dbeta = np.sum(g * (b - slope * z)), np.sum(g * (1 - slope))
    else:
        value = alpha * (b + beta)
        dalpha, dbeta = np.sum(g * (b + beta - slope * z)), np.sum(g * (alpha - slope))
    return value, g * slope, dalpha, dbeta


def rbnn_fit(z: Array, left: Array, right: Array) -> tuple[Array, Array]:
    """Three alternations on standardised weights (channels, a, b)."""
    for _ in range(3):
        b = s(np.einsum("ji,njk,kl->nil", left, z, right))
        u, _, vt = np.linalg.svd(np.einsum("nij,kj,nlk->il", b, right, z))
        left = vt.T @ u.T
        u, _, vt = np.linalg.svd(np.einsum("nji,jk,nkl->il", z, left, b))
        right = u @ vt
    return left, right


def rbnn_rotate(
    w: Array, g: Array, theta: Array, left: Array, right: Array, slope: object
) -> tuple[Array, Array, Array]:
    z, _ = standardised(w, g)
    a, b = len(left), len(right)
    turned = np.einsum("ji,njk,kl->nil", left, z.reshape(len(w), a, b), right).reshape(w.shape)
    share = rows(w, np.abs(np.sin(theta)))
    v = z + share * (turned - z)
    gv = g * slope(v)  # type: ignore[operator]
    dtheta = (gv * (turned - z)).reshape(len(w), -1).sum(1)
    dtheta = dtheta * np.cos(theta) * np.sign(np.sin(theta))
    return s(v), standardised(w, gv * (1 - share))[1], dtheta


# Ternary.


def twn(w: Array, factor: float, per_row: bool) -> Array:
    mean = row_mean(np.abs(w)) if per_row else np.mean(np.abs(w))
    kept = np.abs(w) > factor * mean
    if per_row:
        total = row_mean(np.abs(w) * kept)
        alpha = np.divide(total, row_mean(kept * 1.0), where=total > 0, out=np.zeros_like(total))
    else:
        alpha = np.abs(w)[kept].mean()
    return alpha * s(w) * kept


def ttq(w: Array, g: Array, wp: float, wn: float, t: float) -> tuple[Array, Array, Array, Array]:
    delta = t * np.max(np.abs(w))
    up, down = w > delta, w < -delta
    factor = np.where(up, wp, np.where(down, wn, 1.0))
    return wp * up - wn * down, g * factor, np.sum(g * up), -np.sum(g * down)


def absmean_ternary(w: Array) -> Array:
    scale = max(np.mean(np.abs(w)), 1e-5)
    return scale * np.clip(np.round(w / scale), -1, 1)


# Multi-bit.


def q_k(x: Array, k: int) -> Array:
    return np.round((2**k - 1) * x) / (2**k - 1)


def dorefa_weight(w: Array, g: Array, k: int, grad: str) -> tuple[Array, Array]:
    t = np.tanh(w)
    top = np.max(np.abs(t))
    value = 2 * q_k(t / (2 * top) + 0.5, k) - 1
    if grad == "identity":
        return value, g
    dx = g * (1 - t**2) / top
    if grad == "full":
        at = np.unravel_index(np.argmax(np.abs(t)), t.shape)
        dx[at] -= np.sum(g * t) / top**2 * s(t[at]) * (1 - t[at] ** 2)
    return value, dx


def dorefa_gradient(g: Array, k: int, u: Array) -> Array:
    """``u``: the draws of [-1/2, 1/2); rows are samples. No sample is all zeros."""
    top = np.max(np.abs(g.reshape(len(g), -1)), axis=1)
    unit = g / rows(g, top) * 0.5 + 0.5 + u / (2**k - 1)
    return (q_k(np.clip(unit, 0, 1), k) - 0.5) * rows(g, top) * 2


def pact(x: Array, g: Array, alpha: float, k: int) -> tuple[Array, Array, Array]:
    levels = 2**k - 1
    value = np.round(np.clip(x, 0, alpha) * levels / alpha) * alpha / levels
    return value, g * ((x >= 0) & (x <= alpha)), np.sum(g * (x >= alpha))


def lsq(
    x: Array, g: Array, step: Array, low: int, high: int, count: int, beta: float = 0.0
) -> tuple[Array, Array, Array, Array]:
    """Gradients of step and beta per element, still to be summed; count elements share a step."""
    z = (x - beta) / step
    value = np.round(np.clip(z, low, high)) * step + beta
    inside = (z >= low) & (z <= high)
    dstep = np.where(inside, np.round(z) - z, np.clip(z, low, high))
    scale = 1 / math.sqrt(count * high)
    return value, g * inside, g * dstep * scale, g * ~inside * scale


def nearest(x: Array, levels: Array) -> Array:
    levels = np.sort(np.asarray(levels))
    return levels[np.argmin(np.abs(x[..., None] - levels), axis=-1)]


def lq(x: Array, basis: Array, signed: bool) -> tuple[Array, Array]:
    """Values of one channel, and the least squares fit of its basis to the codes."""
    codes = np.array(list(itertools.product([-1, 1] if signed else [0, 1], repeat=len(basis))))
    levels = codes @ basis
    # Of two levels as near, argmin takes the first: the smaller one.
    order = np.argsort(levels, kind="stable")
    chosen = codes[order][np.argmin(np.abs(x.ravel()[:, None] - levels[order]), axis=1)]
    square = chosen.T @ chosen + 1e-4 * np.eye(len(basis))
    fitted = np.linalg.inv(square) @ (chosen.T @ x.ravel() + 1e-4 * basis)
    return (chosen @ basis).reshape(x.shape), fitted


def apot(w: Array, g: Array, alpha: float, levels: Array) -> tuple[Array, Array, Array]:
    """Signed, on w already standardised: dw is g without a clip."""
    u = np.clip(w / alpha, -1, 1)
    projected = nearest(u, levels)
    beyond = np.abs(w) > alpha
    dalpha = np.sum(g * np.where(beyond, np.sign(w), projected - w / alpha))
    return alpha * projected, g, dalpha


def uniform(
    x: Array, scale: float | Array, zero: float | Array, low: int, high: int
) -> tuple[Array, Array]:
    """Value and 1[in range] of S (clip(round(x / S) + Z, low, high) - Z)."""
    code = np.round(x / scale) + zero
    return scale * (np.clip(code, low, high) - zero), (code >= low) & (code <= high)


def affine(
    x: Array, low: int, high: int, signed: bool, symmetric: bool, per_row: bool
) -> tuple[Array, Array]:
    """Scale and zero point of the codes low … high over the range of x, which includes 0."""
    flat = x.reshape(len(x), -1) if per_row else x.reshape(1, -1)
    smallest, largest = np.minimum(flat.min(1), 0), np.maximum(flat.max(1), 0)
    # Symmetric and without the lowest code, unsigned codes begin at 1: that one is 0 then.
    zero = np.full_like(largest, max(low, 0))
    if symmetric and signed:
        scale = np.maximum(-smallest, largest) / ((high - low) / 2)
    else:
        scale = (largest - (0 if symmetric else smallest)) / (high - low)
    if not symmetric:
        zero = low - np.round(smallest / scale)
    return (rows(x, scale), rows(x, zero)) if per_row else (scale, zero)
