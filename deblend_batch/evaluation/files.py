"""Parquet files of one table, read part by part as NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from deblend_batch import storage
from deblend_batch.detections.formats.parquet import data_files, is_folder
from deblend_batch.errors import TooLargeError
from deblend_batch.evaluation.errors import EvaluationError
from deblend_batch.parquet.file import Allowance, BoundedParquet, is_text
from deblend_batch.storage.unpacking import MAX_RATIO

_LONGEST_WORD = 32

Columns = dict[str, NDArray[Any]]


class ParquetTable:
    """Parquet files that are one table.

    Parameters
    ----------
    urls : sequence of str
        Files, or one folder.
    where : str
        What they are, for messages.
    options : mapping, optional
        fsspec storage options.
    """

    def __init__(self, urls: Sequence[str], where: str, options: storage.Options | None) -> None:
        folder = len(urls) == 1 and is_folder(urls[0], options)
        self._urls = data_files(urls[0], options) if folder else list(urls)
        self._where = where
        self._options = options
        with self._opened(self._urls[0]) as first:
            self.names: list[str] = first.schema.names

    def columns(self, wanted: Mapping[str, str], *, ratio: float = MAX_RATIO) -> Iterator[Columns]:
        """Read columns of numbers and words, half a million rows at a time.

        Yields
        ------
        dict of ndarray
            At least one, which may have no rows.
        """
        allowance = Allowance(ratio)
        for url in self._urls:
            with self._opened(url) as file:
                known = [name for name in wanted.values() if name in file.schema.names]
                for part in file.batches(list(dict.fromkeys(known)), allowance):
                    yield {
                        noun: _values(part[name]) if name in known else np.full(len(part), np.nan)
                        for noun, name in wanted.items()
                    }

    @contextmanager
    def _opened(self, url: str) -> Iterator[BoundedParquet]:
        with storage.open_read(url, self._options) as file:
            try:
                yield BoundedParquet(file)
            except TooLargeError as error:
                raise TooLargeError(f"{self._where}: {error}") from error
            except (pa.ArrowException, OSError) as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                raise EvaluationError(
                    f"{self._where}: not Parquet ({reason}); give a Parquet table"
                ) from error


def _values(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column as an array; words are held by their numbers until they are known to be short."""
    kind = column.type
    if not (pa.types.is_dictionary(kind) or is_text(kind)):
        values: NDArray[Any] = column.to_numpy()
        return values
    whole = column if pa.types.is_dictionary(kind) else column.dictionary_encode()
    parts = [_words(chunk) for chunk in whole.chunks]
    return np.concatenate([np.empty(0, np.str_), *parts])


def _words(chunk: pa.DictionaryArray) -> NDArray[Any]:
    words = [str(word) for word in chunk.dictionary.to_pylist()]
    if max(map(len, words), default=0) > _LONGEST_WORD:
        raise pa.ArrowInvalid(
            f"texts of more than {_LONGEST_WORD} characters where words should be"
        )
    unknown = len(words)
    values: NDArray[Any] = np.array([*words, ""])[chunk.indices.fill_null(unknown).to_numpy()]
    return values
