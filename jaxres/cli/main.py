"""The command line: finds the command, and turns what goes wrong into one line and a status.

Errors a user can cause become one line on standard error and status 2; a failure while running
is status 1. Imports of JAX and TFDS wait until a command needs them, so that help is quick.
"""

import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TextIO

from jaxres.cli import (
    data,
    evaluate,
    export,
    import_weights,
    models,
    predict,
    recipes,
    report,
    reproduce,
    show,
    train,
)
from jaxres.runtime.errors import (
    InputError,
    TrainingFailed,
    brief,
    os_reason,
    sentence,
    unknown_name,
)
from jaxres.runtime.memory import keep_freed_memory
from jaxres.runtime.screen import say

Command = Callable[[Sequence[str]], int]

COMMANDS: dict[str, tuple[Command, type]] = {
    "train": (train.train, train.Train),
    "evaluate": (evaluate.evaluate, evaluate.Evaluate),
    "predict": (predict.predict, predict.Predict),
    "recipes": (recipes.recipes, recipes.Recipes),
    "models": (models.models, models.Models),
    "import-weights": (import_weights.import_weights, import_weights.ImportWeights),
    "export": (export.export, export.Export),
    "report": (report.report, report.Report),
    "reproduce": (reproduce.reproduce, reproduce.Reproduce),
    "show mistakes": (show.show_mistakes, show.ShowMistakes),
    "show attention": (show.show_attention, show.ShowAttention),
    "show filters": (show.show_filters, show.ShowFilters),
    "show pooling": (show.show_pooling, show.ShowPooling),
    "data list": (data.data_list, data.DataList),
    "data prepare": (data.data_prepare, data.DataPrepare),
    "data preview": (data.data_preview, data.DataPreview),
}
HELP = ("-h", "--help", "help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's) and return its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    keep_freed_memory()
    if sys.stderr is None:  # it is closed, and print would take standard output for it
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        say("error: standard output is closed; allowed: open, or > /dev/null")
        return 2
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name need not be text
            stream.reconfigure(errors="backslashreplace")
    problem = ""
    try:
        status = run(words)
    except InputError as error:
        status, problem = 2, sentence(error)
    except TrainingFailed as error:
        status, problem = 1, sentence(error)
    except KeyboardInterrupt:
        say("interrupted")
        status = 130
    except BrokenPipeError:  # the reader of our output has gone
        give_up_output()
        status = 1
    except PermissionError as error:
        status, problem = 2, f"cannot use '{error.filename}': {os_reason(error)}"
    except Exception as error:
        status, problem = 2, missing_devices()
        if not problem:
            traceback.print_exc()
            status, problem = 1, f"{type(error).__name__}: {error}"
    if problem:
        say(f"error: {problem}")
    if status and (processes := sys.modules.get("jaxres.distributed.process_group")):
        processes.abandon(problem or "interrupted", status)
    return status


def missing_devices() -> str:
    """What is wrong where JAX has not the devices that JAX_PLATFORMS asks for, else nothing."""
    asked, jax = os.environ.get("JAX_PLATFORMS"), sys.modules.get("jax")
    if not asked or jax is None:
        return ""
    try:
        jax.devices()
    # JAX raises RuntimeError, or AssertionError where a plugin is not installed.
    except Exception as error:
        reason = f" ({brief(error)})" if str(error) else ""
        jax.config.update("jax_platforms", None)
        found = f"{jax.default_backend()} x {jax.device_count()}"
        return (
            f"JAX_PLATFORMS is '{asked}', of which JAX finds no device{reason}; without it JAX "
            f"finds {found} here"
        )
    return ""


def run(words: list[str]) -> int:
    """Run a command to its last line of output.

    Raises:
        InputError: standard output cannot be written, or what the command raises.
    """
    try:
        status = dispatch(words)
    except SystemExit as stop:  # --help
        status = int(stop.code or 0)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_output()
        raise InputError(f"cannot write the output: {os_reason(error)}") from None
    return status


def give_up_output() -> None:
    """Keep Python from failing, at its exit, to write what is left of the output."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def dispatch(words: list[str]) -> int:
    """Find the command and run it."""
    if not words:
        print_help(sys.stderr)
        return 2
    if words[0] in HELP:
        print_help(sys.stdout)
        return 0
    if words[0] == "--version":
        from jaxres import __version__

        print(f"jaxres {__version__}")
        return 0
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS:
            return COMMANDS[name][0](words[length:])
    group = f"{words[0]} "
    second = [name.removeprefix(group) for name in COMMANDS if name.startswith(group)]
    if second and not words[1:]:
        raise InputError(f"jaxres {group}needs a command; allowed: {', '.join(second)}")
    if second and words[1] in HELP:
        print_help(sys.stdout, group)
        return 0
    if second:
        raise unknown_name(f"command after '{words[0]}'", words[1], second)
    raise unknown_name("command", words[0], {name.partition(" ")[0] for name in COMMANDS})


def print_help(stream: TextIO, group: str = "") -> None:
    """The commands, a line each; of a `group`, such as "data ", its own."""
    print(f"usage: jaxres {group}COMMAND [--help]\n", file=stream)
    for name, (_, arguments) in COMMANDS.items():
        if name.startswith(group):
            first = (arguments.__doc__ or "").splitlines()[0]
            print(f"  {name.removeprefix(group):14} {first}", file=stream)


if __name__ == "__main__":
    sys.exit(main())
