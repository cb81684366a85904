"""An optimiser of your own: Chen et al. 2023, "Symbolic discovery of optimization algorithms"."""

import optax

import jaxres


@jaxres.register_optimizer("lion")
def lion(config, learning_rate):
    """Optax's, with the settings `optim.beta1`, `beta2` and `weight_decay`."""
    return optax.lion(learning_rate, config.beta1, config.beta2, weight_decay=config.weight_decay)
