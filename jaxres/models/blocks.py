"""Building blocks shared by every architecture.

Parameters and statistics are float32; `dtype` is the dtype of the arithmetic and of activations.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from jaxres.errors import InputError
from jaxres.models.initial import variance_scaling
from jaxres.ops import pool
from jaxres.ops.conv import Padding, conv2d
from jaxres.ops.norm import batch_norm, normalise

# He et al., "Delving Deep into Rectifiers" (2015), the fan-out form that torchvision uses.
he_normal_fan_out = variance_scaling(2.0, "fan_out", "normal")
# Uniform within 1 / sqrt(inputs), as torch initialises linear layers.
uniform_fan_in = variance_scaling(1 / 3, "fan_in", "uniform")


class Conv(nnx.Module):
    """A convolution; `kernel` is (height, width, channels in / groups, channels out)."""

    def __init__(
        self,
        channels: int,
        features: int,
        window: int,
        *,
        stride: int = 1,
        padding: int | Padding | Literal["SAME"] = 0,
        groups: int = 1,
        use_bias: bool = False,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        shape = (window, window, channels // groups, features)
        self.kernel = nnx.Param(he_normal_fan_out(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32)) if use_bias else None
        self.stride = stride
        self.padding: int | Padding | Literal["SAME"] = padding
        self.groups = groups
        self.dtype = dtype

    def __call__(self, images: Float[Array, "n h w ci"]) -> Float[Array, "n oh ow co"]:
        """Convolve and, where there is a bias, add it."""
        outputs = conv2d(
            images.astype(self.dtype),
            self.kernel[...].astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )
        return outputs if self.bias is None else outputs + self.bias[...].astype(self.dtype)


class BatchNorm(nnx.Module):
    """Batch normalisation over pictures and pixels (Ioffe and Szegedy, 2015).

    Training normalises by the batch's mean and (biased) variance and moves the running ones a tenth
    of the way to them; torch moves its running variance towards the unbiased estimate, larger by
    n / (n - 1). With `axis_name` the batch is the global one: moments are averaged over that axis.
    """

    momentum = 0.9
    epsilon = 1e-5

    def __init__(
        self,
        features: int,
        *,
        zero_scale: bool = False,
        axis_name: str | None = None,
        dtype: jax.typing.DTypeLike,
    ):
        self.scale = nnx.Param(jnp.full(features, 0.0 if zero_scale else 1.0, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(features, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(features, jnp.float32))
        self.axis_name = axis_name
        self.dtype = dtype

    def __call__(
        self,
        images: Float[Array, "n h w c"],
        shortcut: Float[Array, "n h w c"] | None = None,
        *,
        train: bool,
        rectify: bool = False,
    ) -> Float[Array, "n h w c"]:
        """Normalise, by the running statistics unless `train`; add `shortcut`; rectify if asked."""
        images = images.astype(self.dtype)
        scale, bias = self.scale[...], self.bias[...]
        if not train:
            return normalise(
                images,
                self.mean[...],
                self.var[...],
                scale,
                bias,
                shortcut,
                epsilon=self.epsilon,
                rectify=rectify,
            )
        outputs, mean, var = batch_norm(
            images,
            scale,
            bias,
            shortcut,
            epsilon=self.epsilon,
            rectify=rectify,
            axis_name=self.axis_name,
        )
        kept = self.momentum
        self.mean[...] = kept * self.mean[...] + (1 - kept) * mean
        self.var[...] = kept * self.var[...] + (1 - kept) * var
        return outputs


class ConvNorm(nnx.Module):
    """A convolution without bias, then batch normalisation."""

    def __init__(
        self,
        channels: int,
        features: int,
        window: int,
        *,
        stride: int = 1,
        padding: int = 0,
        axis_name: str | None = None,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            channels, features, window, stride=stride, padding=padding, dtype=dtype, rngs=rngs
        )
        self.norm = BatchNorm(features, axis_name=axis_name, dtype=dtype)

    def __call__(
        self, images: Float[Array, "n h w ci"], *, train: bool, rectify: bool = False
    ) -> Float[Array, "n oh ow co"]:
        """Convolve, then normalise, then rectify if asked."""
        return self.norm(self.conv(images), train=train, rectify=rectify)


class Linear(nnx.Module):
    """A product of rows by `kernel` (inputs, outputs) plus a bias that starts at zero."""

    def __init__(self, inputs: int, outputs: int, *, dtype: jax.typing.DTypeLike, rngs: nnx.Rngs):
        self.kernel = nnx.Param(uniform_fan_in(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))
        self.dtype = dtype

    def __call__(self, rows: Float[Array, "n k"]) -> Float[Array, "n outputs"]:
        """Multiply in `dtype`, accumulate and add the bias in float32; the result is float32."""
        kernel = self.kernel[...].astype(self.dtype)
        product = jnp.matmul(rows.astype(self.dtype), kernel, preferred_element_type=jnp.float32)
        return product + self.bias[...]


def dropout(
    features: Float[Array, "..."], rate: float, *, train: bool, key: PRNGKeyArray | None
) -> Float[Array, "..."]:
    """Zero each value with probability `rate` and scale the others by 1 / (1 - rate), in training.

    Raises:
        ValueError: training with a rate above zero but no key.
    """
    if not train or rate == 0.0:
        return features
    if key is None:
        raise ValueError(f"dropout of {rate} needs a key in training; none was given")
    kept = jax.random.bernoulli(key, 1.0 - rate, features.shape)
    return jnp.where(kept, features / (1.0 - rate), jnp.zeros((), features.dtype))


class Head(nnx.Module):
    """From the last feature maps to logits: pooled to an average or flattened, dropout, linear."""

    def __init__(
        self,
        channels: int,
        size: int,
        classes: int,
        *,
        kind: str,
        dropout: float,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        if kind not in ("average", "flatten"):
            raise InputError(f"head is '{kind}'; allowed: average, flatten")
        if not 0.0 <= dropout < 1.0:
            raise InputError(f"dropout is {dropout}; allowed: 0 up to, not including, 1")
        inputs = channels if kind == "average" else channels * size**2
        self.linear = Linear(inputs, classes, dtype=dtype, rngs=rngs)
        self.kind = kind
        self.dropout = dropout

    def __call__(
        self, features: Float[Array, "n h w c"], *, train: bool, key: PRNGKeyArray | None
    ) -> Float[Array, "n classes"]:
        """Logits in float32. `key` draws the dropout of a training step."""
        if self.kind == "average":
            rows = pool.global_average_pool(features)
        else:
            rows = features.reshape(features.shape[0], -1)
        return self.linear(dropout(rows, self.dropout, train=train, key=key))
