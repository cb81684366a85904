"""The studies' plain convolutional networks for small images, and their fully connected one."""

from functools import partial

from jaxres.models.sequential import ConvLayer, Dropout, MaxPool, Sequential, SpatialDropout

# Strides in the place of pooling (Springenberg et al., "Striving for Simplicity", 2015); for MNIST
# in a minute on a CPU.
ALL_CNN_SMALL = (
    ConvLayer(32, 5, stride=2, norm=True, bias=False),
    ConvLayer(64, stride=2, norm=True, bias=False),
    ConvLayer(64, norm=True, bias=False),
)

# Study S3's baseline, of which it says no more than its two convolutions.
TWO_CONV_CNN = (ConvLayer(32), MaxPool(), ConvLayer(64), MaxPool())

# Study S4's first network.
SIMPLE_CNN = (ConvLayer(32), ConvLayer(32), MaxPool(), ConvLayer(64), ConvLayer(64), MaxPool())

# Study S4's own network: blocks of 3, 2 and 2 convolutions.
_NORMED_64, _NORMED_128, _NORMED_256 = (
    ConvLayer(features, norm=True, bias=False) for features in (64, 128, 256)
)
DE_NOVO_CNN = (
    *[_NORMED_64] * 3,
    MaxPool(),
    SpatialDropout(0.2),
    *[_NORMED_128] * 2,
    MaxPool(),
    SpatialDropout(0.2),
    *[_NORMED_256] * 2,
    MaxPool(),
    Dropout(0.2),
)

# Study S5's network for Fashion-MNIST.
HANDBOOK_CNN = (
    ConvLayer(64, 7),
    MaxPool(),
    *[ConvLayer(128)] * 2,
    MaxPool(),
    *[ConvLayer(256)] * 2,
    MaxPool(),
)


class DeNovoCNN(Sequential):
    """The network with spatial dropout."""

    own_options = ("spatial_dropout",)


MODELS = {
    "all_cnn_small": partial(Sequential, ALL_CNN_SMALL),
    "two_conv_cnn": partial(Sequential, TWO_CONV_CNN, dense=(128,)),
    "simple_cnn": partial(Sequential, SIMPLE_CNN, dense=(1024,)),
    "de_novo_cnn": partial(DeNovoCNN, DE_NOVO_CNN, dense=(512,), dense_norm=True, dropout=0.5),
    "handbook_cnn": partial(Sequential, HANDBOOK_CNN, dense=(128, 64), dropout=0.5),
    "handbook_mlp": partial(Sequential, (), dense=(300, 100)),
}
