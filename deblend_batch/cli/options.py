"""Options and arguments that several verbs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from deblend_batch.errors import ConfigError

if TYPE_CHECKING:
    from deblend_batch.catalog.output import Output

OutputArg = Annotated[
    str, typer.Argument(help="Output folder of a run; path or URL.", show_default=False)
]
StorageOpt = Annotated[
    Optional[str],  # noqa: UP045 (typer reads it)
    typer.Option(
        "--storage-options",
        metavar="FILE",
        help="YAML file with the fsspec options of remote stores, such as endpoint and key.",
    ),
]


def read_storage_options(file: str | None) -> dict[str, Any] | None:
    """Read what ``--storage-options`` names.

    Parameters
    ----------
    file : str, optional
        Path of a YAML file. Options are never words of the command line: process lists show those.

    Returns
    -------
    dict or None
        fsspec ``storage_options``; None where the option was not given.
    """
    if file is None:
        return None
    from deblend_batch.settings import load_storage_options

    return load_storage_options(file)


def open_output(output: str, options_file: str | None) -> Output:
    """Return the output folder that a verb was given, with what ``--storage-options`` names."""
    from deblend_batch.catalog.output import Output

    if output.lower().endswith((".yaml", ".yml")):
        raise ConfigError(
            f"{output}: is a config, and this takes the folder of a run; give what its key 'output' names"
        )
    return Output(output, read_storage_options(options_file) or {})
