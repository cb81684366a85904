"""Building blocks shared by every architecture.

Parameters and statistics are float32; `dtype` is the dtype of the arithmetic and of activations.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from jaxres.models.initial import variance_scaling
from jaxres.ops import folded_norm, pool, pooled_norm, target
from jaxres.ops.conv import Padding, conv2d
from jaxres.ops.norm import batch_norm, normalise

# Uniform within 1 / sqrt(inputs), as torch initialises linear layers.
uniform_fan_in = variance_scaling(1 / 3, "fan_in", "uniform")
# He et al. (2015), for what ReLU follows.
he_normal_fan_in = variance_scaling(2.0, "fan_in", "normal")


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
        # He et al., "Delving Deep into Rectifiers" (2015), by the outputs as torchvision does; a
        # group's outputs see a group's share of the gradient.
        he_normal = variance_scaling(2.0 * groups, "fan_out", "normal")
        shape = (window, window, channels // groups, features)
        self.kernel = nnx.Param(he_normal(rngs.params(), shape))
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
    """Batch normalisation over images and pixels (Ioffe and Szegedy, 2015).

    Training normalises by the batch's mean and (biased) variance and moves the running ones a tenth
    of the way to them; torch moves its running variance towards the unbiased estimate, larger by
    n / (n - 1). With `axis_name` the batch is the global one: moments are averaged over that axis.
    """

    momentum = 0.9

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-5,
        zero_scale: bool = False,
        axis_name: str | None = None,
        dtype: jax.typing.DTypeLike,
    ):
        self.scale = nnx.Param(jnp.full(features, 0.0 if zero_scale else 1.0, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(features, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(features, jnp.float32))
        self.epsilon = epsilon
        # Both set by `pure.apply`: normalise by the running statistics always; `model.fold_norm`.
        self.frozen = False
        self.fold_rule = "auto"
        self.axis_name = axis_name
        self.dtype = dtype

    def __call__(
        self,
        images: Float[Array, "n h w c"],
        shortcut: Float[Array, "n h w c"] | None = None,
        *,
        train: bool,
        relu: bool = False,
        max_value: float | None = None,
    ) -> Float[Array, "n h w c"]:
        """Normalise, by the running statistics unless `train` and not frozen; add `shortcut`;
        apply ReLU if asked, cutting what is above `max_value`."""
        images = images.astype(self.dtype)
        scale, bias = self.scale[...], self.bias[...]
        if not train or self.frozen:
            return normalise(
                images,
                self.mean[...],
                self.var[...],
                scale,
                bias,
                shortcut,
                epsilon=self.epsilon,
                relu=relu,
                max_value=max_value,
            )
        outputs, mean, var = batch_norm(
            images,
            scale,
            bias,
            shortcut,
            epsilon=self.epsilon,
            relu=relu,
            max_value=max_value,
            axis_name=self.axis_name,
        )
        self.track(mean, var)
        return outputs

    @property
    def folds(self) -> bool:
        """Whether training takes it in with what stands beside it: see `ModelConfig.fold_norm`."""
        if self.frozen or self.fold_rule == "never":
            return False
        return self.fold_rule == "always" or target.backend() != "cpu"

    def track(self, mean: Float[Array, " c"], var: Float[Array, " c"]) -> None:
        """Move the running statistics a tenth of the way to a batch's."""
        kept = self.momentum
        self.mean[...] = kept * self.mean[...] + (1 - kept) * mean
        self.var[...] = kept * self.var[...] + (1 - kept) * var


def conv_norm(
    conv: Conv,
    norm: BatchNorm,
    images: Float[Array, "n h w ci"],
    shortcut: Float[Array, "n oh ow co"] | None = None,
    *,
    train: bool,
    relu: bool = False,
    max_value: float | None = None,
) -> Float[Array, "n oh ow co"]:
    """Convolve, normalise, add `shortcut`, then apply ReLU if asked, up to `max_value`.

    In training as one operation where that is possible and pays: see `ops/folded_norm.py`.
    """
    channels, features = conv.kernel.shape[-2:]
    pointwise = conv.kernel.shape[:2] == (1, 1) and conv.groups == 1 and conv.padding in (0, "SAME")
    possible = train and pointwise and max_value is None
    if not (possible and norm.folds and folded_norm.pays(channels, features)):
        return norm(conv(images), shortcut, train=train, relu=relu, max_value=max_value)
    outputs, mean, var = folded_norm.conv_batch_norm(
        images.astype(conv.dtype),
        conv.kernel[...][0, 0],
        norm.scale[...],
        norm.bias[...],
        shortcut,
        stride=conv.stride,
        epsilon=norm.epsilon,
        relu=relu,
        axis_name=norm.axis_name,
    )
    # A bias of the convolution is taken off again with the mean: it only moves the running one.
    norm.track(mean if conv.bias is None else mean + lax.stop_gradient(conv.bias[...]), var)
    return outputs


class ConvNorm(nnx.Module):
    """A convolution, then batch normalisation."""

    def __init__(
        self,
        channels: int,
        features: int,
        window: int,
        *,
        stride: int = 1,
        padding: int | Literal["SAME"] = 0,
        groups: int = 1,
        use_bias: bool = False,
        epsilon: float = 1e-5,
        zero_scale: bool = False,
        axis_name: str | None = None,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            channels,
            features,
            window,
            stride=stride,
            padding=padding,
            groups=groups,
            use_bias=use_bias,
            dtype=dtype,
            rngs=rngs,
        )
        self.norm = BatchNorm(
            features, epsilon=epsilon, zero_scale=zero_scale, axis_name=axis_name, dtype=dtype
        )

    def __call__(
        self,
        images: Float[Array, "n h w ci"],
        shortcut: Float[Array, "n oh ow co"] | None = None,
        *,
        train: bool,
        relu: bool = False,
        max_value: float | None = None,
    ) -> Float[Array, "n oh ow co"]:
        """See `conv_norm`."""
        given = {"train": train, "relu": relu, "max_value": max_value}
        return conv_norm(self.conv, self.norm, images, shortcut, **given)


def conv_norm_pool(
    layer: ConvNorm,
    images: Float[Array, "n h w ci"],
    *,
    window: int,
    stride: int,
    padding: int = 0,
) -> Float[Array, "n oh ow co"]:
    """Convolve, normalise, apply ReLU and take the largest of each window, in training.

    The last three as one operation where norms are folded: see `ops/pooled_norm.py`.
    """
    if not layer.norm.folds:
        maps = layer(images, train=True, relu=True)
        return pool.max_pool(maps, window=window, stride=stride, padding=padding)
    norm = layer.norm
    outputs, mean, var = pooled_norm.batch_norm_max_pool(
        layer.conv(images).astype(norm.dtype),
        norm.scale[...],
        norm.bias[...],
        window=window,
        stride=stride,
        padding=padding,
        epsilon=norm.epsilon,
        axis_name=norm.axis_name,
    )
    norm.track(mean, var)
    return outputs


class Linear(nnx.Module):
    """A product of rows by `kernel` (inputs, outputs) plus a bias that starts at zero.

    With `relu_follows` the kernel starts larger, as He et al. have it.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        relu_follows: bool = False,
        dtype: jax.typing.DTypeLike,
        rngs: nnx.Rngs,
    ):
        draw = he_normal_fan_in if relu_follows else uniform_fan_in
        self.kernel = nnx.Param(draw(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))
        self.dtype = dtype

    def __call__(self, rows: Float[Array, "n k"]) -> Float[Array, "n outputs"]:
        """Multiply in `dtype`, accumulate and add the bias in float32; the result is float32."""
        kernel = self.kernel[...].astype(self.dtype)
        product = jnp.matmul(rows.astype(self.dtype), kernel, preferred_element_type=jnp.float32)
        return product + self.bias[...]
