"""A loss of your own: Lin et al. 2017, "Focal loss for dense object detection", with gamma 2."""

import jax
import jax.numpy as jnp

import jaxres


@jaxres.register_loss("focal")
def focal(logits, labels, *, smoothing=0.0):
    """Cross-entropy that counts less the surer the network is; the loss of each example."""
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    targets = (1 - smoothing) * targets + smoothing / logits.shape[-1]
    log_probabilities = jax.nn.log_softmax(logits)
    return -(targets * jnp.square(1 - jnp.exp(log_probabilities)) * log_probabilities).sum(-1)
