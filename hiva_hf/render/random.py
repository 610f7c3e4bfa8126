"""Random numbers that depend on what they are for, not on the order in which they are drawn.

Every number is a hash of (seed, subject, frame, how many were drawn before), so that a face comes out the same whatever
batch it is in. The hash is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

import math

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_STEP, _FIRST, _SECOND = (_signed(v) for v in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def mix(keys: Tensor) -> Tensor:
    """64 well-mixed bits of each key.

    Args:
        keys (`torch.Tensor` of dtype `int64`): Any shape.

    Returns:
        `torch.Tensor`: int64 of the same shape; the same on every device.
    """
    # int64 has no logical shift: the mask drops the sign that an arithmetic one pulls in
    x = keys + _STEP
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _FIRST
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _SECOND
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def derive(keys: Tensor, *parts: int | Tensor) -> Tensor:
    """Keys for something below each key, such as a frame of a subject."""
    for part in parts:
        below = part if isinstance(part, Tensor) else torch.tensor(part, dtype=torch.int64, device=keys.device)
        keys = mix(keys ^ mix(below.to(torch.int64) + 1))
    return keys


def pixel_noise(keys: Tensor, count: int) -> Tensor:
    """Numbers close to the standard normal, for noise of pixels.

    Args:
        keys (`torch.Tensor` of shape `(num_images,)`): int64.
        count (`int`): How many an image.

    Returns:
        `torch.Tensor` of shape `(num_images, count)`: The sum of four 16-bit pieces of a hash, mean 0, deviation 1.
    """
    bits = mix(keys[:, None] + torch.arange(count, dtype=torch.int64, device=keys.device) * _SECOND)
    total = (bits & 0xFFFF) + ((bits >> 16) & 0xFFFF) + ((bits >> 32) & 0xFFFF) + ((bits >> 48) & 0xFFFF)
    return (total.float() / 65536.0 - 2.0) * math.sqrt(3.0)


def power(base: Tensor, exponent: float) -> Tensor:
    """`base ** exponent` of what is above 0, the same wherever a number stands in its tensor, which `pow` is not."""
    return (base.log() * exponent).exp()


def mixed(values: Tensor, factor: Tensor) -> Tensor:
    """`values @ factor.T`, summed up in one order whatever the number of rows."""
    total = values[:, :1] * factor[:, 0]
    for k in range(1, values.shape[1]):
        total = total + values[:, k : k + 1] * factor[:, k]
    return total


class Draws:
    """Draws one value a key, again and again; the n-th draw of a key is always the same.

    Args:
        keys (`torch.Tensor` of shape `(num_keys,)`): int64, from [`derive`].
    """

    def __init__(self, keys: Tensor):
        self.keys = keys
        self._drawn = 0

    def _unit(self, n: int | None) -> Tensor:
        count = 1 if n is None else n
        index = torch.arange(self._drawn, self._drawn + count, dtype=torch.int64, device=self.keys.device)
        self._drawn += count
        bits = mix(self.keys[:, None] ^ mix(index))
        # half a step inside, so that 0 and 1 are never drawn
        unit = (((bits >> 24) & ((1 << 40) - 1)).double() + 0.5) / (1 << 40)
        return unit[:, 0] if n is None else unit

    def uniform(self, low=0.0, high=1.0, n: int | None = None) -> Tensor:
        """Evenly from `low` to `high`, numbers or tensors that broadcast; shape `(num_keys,)`, or `(num_keys, n)`."""
        return (low + (high - low) * self._unit(n)).float()

    def normal(self, mean=0.0, deviation=1.0, n: int | None = None) -> Tensor:
        """From a normal distribution; shape as of [`Draws.uniform`]."""
        return (mean + deviation * math.sqrt(2.0) * torch.erfinv(2.0 * self._unit(n) - 1.0)).float()

    def chance(self, probability, n: int | None = None) -> Tensor:
        """`True` with a probability."""
        return self._unit(n) < probability

    def choice(self, weights: list[float] | Tensor) -> Tensor:
        """Index of one of several, by weight; int64 of shape `(num_keys,)`."""
        edges = torch.as_tensor(weights, dtype=torch.float64).cumsum(0)
        return torch.bucketize(self._unit(None) * edges[-1], edges[:-1].to(self.keys.device), right=True)

    def skewed(self, a: float, b: float) -> Tensor:
        """From 0 to 1, by Kumaraswamy's distribution (1980), which is close to a beta distribution."""
        return power(1.0 - power(1.0 - self._unit(None), 1.0 / b), 1.0 / a).float()


__all__ = ["Draws", "derive", "mix", "mixed", "pixel_noise", "power"]
