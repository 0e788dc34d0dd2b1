"""rANS: what goes in comes out, in about the bits that theory asks for, and damage is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midstream_wire.codecs.rans import (
    TOTAL,
    SymbolReader,
    Table,
    encode_symbols,
    table_of,
)
from midstream_wire.errors import CodecError
from midstream_wire.tensors import Array


def coded(symbols: Array, tables: Array, places: Array) -> bytes:
    """`symbols`, each by the row of `tables` at its place."""
    sizes = tables.astype(np.int64)
    starts = np.cumsum(sizes, axis=1) - sizes
    return encode_symbols(sizes[places, symbols].tolist(), starts[places, symbols].tolist())


@given(
    st.lists(
        st.lists(st.floats(0, 1e6), min_size=16, max_size=16).filter(any),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 3)), max_size=200),
)
def test_symbols_come_back_whatever_their_tables(
    counts: list[list[float]], told: list[tuple[int, int]]
) -> None:
    tables = np.stack([table_of(np.array(row)) for row in counts])
    symbols = np.array([symbol for symbol, _ in told], np.int64)
    places = np.array([place % len(tables) for _, place in told], np.int64)
    data = coded(symbols, tables, places)
    reader = SymbolReader(memoryview(data + b"more"))
    readers = [Table(row) for row in tables]
    assert reader.read([readers[place] for place in places]).tolist() == symbols.tolist()
    reader.finish()
    assert reader.nbytes == len(data)


def test_frequencies_follow_the_counts_and_leave_no_symbol_out() -> None:
    table = table_of(np.array([1e6, 1e3, 1.0, 0.0]))
    assert table.sum() == TOTAL
    assert table.min() == 1
    assert table[0] == TOTAL - 3 - 4
    assert table_of(np.ones(TOTAL)).tolist() == [1] * TOTAL


def test_the_bytes_are_those_of_the_entropy() -> None:
    rng = np.random.default_rng(0)
    chances = 0.6 * 0.4 ** np.arange(16.0)
    symbols = rng.choice(16, size=20_000, p=chances / chances.sum())
    table = table_of(np.bincount(symbols, minlength=16).astype(float))
    data = coded(symbols, table[None], np.zeros(len(symbols), np.int64))
    bits = -np.log2(table[symbols] / TOTAL).sum()
    assert abs(8 * len(data) - bits) < 64


def test_symbols_that_are_cut_off_or_damaged_are_told() -> None:
    table = table_of(np.array([3.0, 2.0, 1.0, 1.0]))
    symbols = np.random.default_rng(0).integers(0, 4, 300)
    data = coded(symbols, table[None], np.zeros(300, np.int64))
    tables = [Table(table)] * 300
    for end in range(len(data)):
        with pytest.raises(CodecError):
            SymbolReader(memoryview(data[:end])).read(tables)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        reader = SymbolReader(memoryview(bytes(damaged) + bytes(8)))
        reader.read(tables)
        with pytest.raises(CodecError, match="damaged"):
            reader.finish()
