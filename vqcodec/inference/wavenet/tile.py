"""The inner product of the CPU sampler: a block of a matrix product kept in vector registers.

Compilers do not keep a two-dimensional block of sums in registers by themselves, so this one
function is written in LLVM's intermediate representation. It is portable: LLVM splits the 16-wide
vectors for processors whose registers are narrower. Samples are the same bits with AVX-512, with
AVX2 (by NUMBA_CPU_NAME=haswell and NUMBA_CPU_FEATURES) and with NEON on an emulated 64-bit Arm; the
tests of the sampler were run with the first two.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

VECTOR = 16
_FLOAT, _HALF, _INT = ir.FloatType(), ir.HalfType(), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, VECTOR)


@intrinsic(prefer_literal=True)
def accumulate_tile(
    context: Any,
    sums: Any,
    starts: Any,
    sums_stride: Any,
    scalars: Any,
    scalars_stride: Any,
    vectors: Any,
    vectors_stride: Any,
    depth: Any,
    n_scalars: Any,
    n_vectors: Any,
    vector_bytes: Any,
) -> Any:
    """sums[m, v] = starts[m, v] + sum over k of scalars[k, m] * vectors[k, v].

    Every sum is built by fused multiply-adds in order of k, whatever the shape of the block: the
    result does not depend, to the last bit, on which block an element falls into.

    Args:
        context: numba's.
        sums: address of float32 (n_scalars, n_vectors * 16).
        starts: address of float32, shaped as the sums; it may be the same.
        sums_stride: elements between rows of both.
        scalars: address of float32 (depth, n_scalars).
        scalars_stride: elements between its rows.
        vectors: address of float32 or float16 (depth, n_vectors * 16).
        vectors_stride: elements between its rows.
        depth: K.
        n_scalars: literal, rows of the block.
        n_vectors: literal, vectors in a row; rows times vectors should leave registers free: 16
            with AVX-512, else 4.
        vector_bytes: literal, of an element of `vectors`: 4 or 2.
    """
    if not isinstance(n_scalars, types.IntegerLiteral):
        raise ValueError("the shape of a tile must be literal")
    rows, columns = n_scalars.literal_value, n_vectors.literal_value
    element = _HALF if vector_bytes.literal_value == 2 else _FLOAT

    def generate(
        codegen_context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any
    ) -> Any:
        sums_at, starts_at, sums_by, *sources, n, _, _, _ = arguments
        scalars_at, scalars_by, vectors_at, vectors_by = sources

        def pointer(address: Any, index: Any, kind: Any, element: Any = _FLOAT) -> Any:
            start = builder.inttoptr(address, element.as_pointer())
            return builder.bitcast(builder.gep(start, [index]), kind.as_pointer())

        def place(base: Any, row: int, column: int) -> Any:
            index = builder.add(
                builder.mul(ir.Constant(_INT, row), sums_by), ir.Constant(_INT, column * VECTOR)
            )
            return pointer(base, index, _VECTOR)

        cells = [(row, column) for row in range(rows) for column in range(columns)]
        first = [builder.load(place(starts_at, *cell), align=4) for cell in cells]
        body = builder.append_basic_block("tile.body")
        after = builder.append_basic_block("tile.after")
        before = builder.block
        builder.branch(body)
        builder.position_at_end(body)
        k = builder.phi(_INT)
        k.add_incoming(ir.Constant(_INT, 0), before)
        totals = []
        for start in first:
            total = builder.phi(_VECTOR)
            total.add_incoming(start, before)
            totals.append(total)
        multiply_add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fmuladd.v{VECTOR}f32"
        )
        vector_row, scalar_row = builder.mul(k, vectors_by), builder.mul(k, scalars_by)
        loaded = []
        for column in range(columns):
            index = builder.add(vector_row, ir.Constant(_INT, column * VECTOR))
            kind = ir.VectorType(element, VECTOR)
            loaded.append(builder.load(pointer(vectors_at, index, kind, element), align=2))
            if element is _HALF:
                loaded[-1] = builder.fpext(loaded[-1], _VECTOR)
        updated = []
        for row in range(rows):
            index = builder.add(scalar_row, ir.Constant(_INT, row))
            scalar = builder.load(pointer(scalars_at, index, _FLOAT))
            broadcast = builder.shuffle_vector(
                builder.insert_element(
                    ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
                ),
                ir.Constant(_VECTOR, ir.Undefined),
                ir.Constant(ir.VectorType(ir.IntType(32), VECTOR), [0] * VECTOR),
            )
            for column in range(columns):
                total = totals[row * columns + column]
                updated.append(builder.call(multiply_add, [broadcast, loaded[column], total]))
        following = builder.add(k, ir.Constant(_INT, 1))
        k.add_incoming(following, body)
        for total, new in zip(totals, updated, strict=True):
            total.add_incoming(new, body)
        builder.cbranch(builder.icmp_signed("<", following, n), body, after)
        builder.position_at_end(after)
        for cell, new in zip(cells, updated, strict=True):
            builder.store(new, place(sums_at, *cell), align=4)
        return codegen_context.get_dummy_value()

    return (
        types.void(*(types.int64,) * 8, n_scalars, n_vectors, vector_bytes),
        generate,
    )
