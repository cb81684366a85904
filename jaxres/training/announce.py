"""What a run says of itself before its first step."""

from jaxres.training import transfer
from jaxres.training.run import Run


def announce(run: Run) -> None:
    """Say what is trained, on what, and from where."""
    start, setup, say = run.start, run.start.setup, run.log.say
    config, device, train = setup.config, setup.mesh.devices.flat[0], setup.splits["train"]
    say(
        f"{config.model.name} on {config.data.dataset}: "
        f"{len(train)} training examples, {setup.total_steps} steps of {config.data.batch_size}, "
        f"{setup.mesh.size} x {device.device_kind} by {config.train.parallel}, "
        f"rendered on the {config.data.render}"
    )
    if partial := train.source.partial:
        say(f"{config.data.dataset} is partial: {partial}")
    if start.weights_from:
        say(f"starting from the {start.weights_from}")
    if (trained := start.phase.trained) is not None:
        frozen = "" if config.model.init_from else "; the others stay random: no model.init_from"
        say(transfer.describe(setup.net.params, trained) + frozen)
    if start.step:
        say(f"resuming from step {start.step} in '{setup.run_dir}'")
    if setup.mesh.size != start.devices_before:
        norms = "" if config.model.sync_batch_norm else "batch norm, "
        say(
            f"note: on {setup.mesh.size} devices, before on {start.devices_before}: {norms}"
            "dropout and rounding depend on how many share a batch, so the numbers will differ"
        )
