"""Networks and image sizes at which ours are compared with independent implementations."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxres.models.pure import Net, abstract_net, flatten, unflatten
from jaxres.ops import target
from tests.models import drawn
from tests.models.drawn import Weights

CLASSES = 10
BATCH = 4
LABELS = np.array([0, 3, 6, 9], np.int32)
CONTRASTS = np.array([0.25, 0.5, 1, 2], np.float32)
# Largest error allowed, of the largest logit: the largest found is 5e-6, in MobileNetV2.
LOGITS = 2e-5
# And of a parameter's gradient: the largest found is 2e-7, as ours has float32 logits.
GRADIENTS = 1e-6
# The gradient of a bias before batch norm is zero but for rounding.
ZERO = 1e-6
# Those that a source needs.
PACKAGES = {
    "from_torchvision": ("torch", "torchvision"),
    "from_studies": ("torch",),
    "from_keras": ("keras",),
}


class Case(NamedTuple):
    """A network without dropout for images of one size."""

    model: str
    size: int  # pixels
    source: str  # of the other implementation, a module of `references`
    options: Mapping[str, Any] = {}

    def __str__(self) -> str:
        return "-".join(map(str, (self.model, self.size, *self.options.values())))

    def net(self, dtype: jax.typing.DTypeLike = jnp.float32) -> Net:
        """Ours, as shapes."""
        options = {"dropout": 0.0, "dtype": dtype, **self.options}
        return abstract_net(self.model, classes=CLASSES, image_size=self.size, **options)

    def images(self) -> np.ndarray:
        """A batch of images, of contrasts that networks tell apart: 1/4 to 2."""
        noise = drawn.draw("images", (BATCH, self.size, self.size, 3))
        return noise * CONTRASTS[:, None, None, None]


# One network or more of each family, compared in full. Paddings differ where maps of an odd size
# are halved and where maps of an even size are: 72 pixels give 36, 18, 9, 5 and 3.
FAMILIES = (
    Case("resnet18", 72, "from_torchvision"),
    Case("resnet50", 65, "from_torchvision"),
    Case("keras_resnet50", 72, "from_keras"),
    Case("vgg11_bn", 33, "from_torchvision"),
    Case("vgg16", 65, "from_keras", {"head": "flatten"}),
    Case("mobilenet_v2", 72, "from_torchvision"),
    Case("shufflenet_v2_x0_5", 72, "from_torchvision"),
    Case("xception", 75, "from_keras"),
    Case("cifar_resnet20", 34, "from_studies"),
    Case("cifar_wide_resnet16_8", 32, "from_studies"),
    Case("all_cnn_small", 28, "from_studies"),
    Case("two_conv_cnn", 29, "from_studies"),
    Case("simple_cnn", 30, "from_studies"),
    Case("de_novo_cnn", 33, "from_studies", {"spatial_dropout": 0.0}),
    Case("handbook_cnn", 28, "from_studies"),
    Case("handbook_mlp", 28, "from_studies"),
)
# Networks that nobody else has written: add a name with its reason.
WITHOUT_REFERENCE = frozenset[str]()
# The others, other sizes and other heads, compared in evaluation.
VARIANTS = (
    Case("resnet18", 33, "from_torchvision", {"stem": "small", "head": "max"}),
    Case("resnet34", 64, "from_torchvision"),
    Case("resnet101", 75, "from_torchvision"),
    Case("resnet152", 32, "from_torchvision"),
    Case("wide_resnet50_2", 65, "from_torchvision"),
    Case("wide_resnet101_2", 33, "from_torchvision"),
    Case("keras_resnet50", 65, "from_keras"),
    Case("vgg11", 65, "from_torchvision"),
    Case("vgg13", 32, "from_torchvision"),
    Case("vgg16", 97, "from_torchvision"),
    Case("vgg16", 64, "from_keras", {"head": "flatten", "dense": (1024, 1024)}),
    Case("vgg19", 33, "from_torchvision"),
    Case("vgg13_bn", 64, "from_torchvision"),
    Case("vgg16_bn", 32, "from_torchvision"),
    Case("vgg19_bn", 65, "from_torchvision"),
    Case("mobilenet_v2", 65, "from_torchvision"),
    Case("shufflenet_v2_x1_0", 65, "from_torchvision"),
    Case("xception", 96, "from_keras"),
    Case("cifar_resnet32", 32, "from_studies"),
    Case("cifar_resnet44", 35, "from_studies"),
    Case("cifar_resnet56", 33, "from_studies"),
    Case("cifar_resnet110", 32, "from_studies"),
    Case("cifar_wide_resnet28_10", 33, "from_studies"),
    Case("all_cnn_small", 29, "from_studies"),
    Case("two_conv_cnn", 128, "from_studies"),
    Case("de_novo_cnn", 64, "from_studies"),
)


def logits(case: Case, weights: Weights) -> np.ndarray:
    """Ours in evaluation, in float32."""
    net = case.net()

    def evaluate(params: Any, stats: Any, images: jax.Array) -> jax.Array:
        return net.apply(params, stats, images, train=False)[0]

    return np.asarray(compiled(evaluate)(*_split(net, weights), case.images()))


def gradients(case: Case, weights: Weights) -> Weights:
    """Ours in training, of the mean cross-entropy, in float64 but for the logits.

    In float32 a few inputs of ReLU at the edge fall on the other side, which moves gradients of
    ResNet-18 by 7e-3 of their norm in ours and by 8e-3 in torch's: more than a wrong epsilon would.
    """
    with jax.enable_x64(True):
        net = case.net(jnp.float64)

        def loss(params: Any, stats: Any, images: jax.Array) -> jax.Array:
            outputs, _ = net.apply(params, stats, images, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(outputs, LABELS).mean()

        doubled = {path: values.astype(np.float64) for path, values in weights.items()}
        images = case.images().astype(np.float64)
        found = compiled(jax.grad(loss))(*_split(net, doubled), images)
        return flatten(jax.device_get(found))


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """With the options that users' programs have."""
    return jax.jit(function, compiler_options=target.compiler_options())


def _split(net: Net, weights: Weights) -> tuple[Any, Any]:
    params, stats = (
        unflatten({path: weights[path] for path in flatten(tree)})
        for tree in (net.params, net.stats)
    )
    return params, stats
