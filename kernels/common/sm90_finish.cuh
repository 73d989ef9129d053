// sm90_finish.cuh — bias and generated epilogue as the Finish of common/sm90_tile.cuh, for products and convolutions.
//
// Contract  The including file defines T_OUT, the parameters below and ACC as float, and gives a place: tile(z) of the tile, and
//           coords(m, n, c[5]): the coordinates of common/epilogue.cuh of an element.
// Params    HAS_BIAS, BIAS_ROWS {0,1} (bias of a row instead of a column), T_BIAS · EPILOGUE as in common/epilogue.cuh ·
//           EXTRA_KIND0..3 of the epilogue's operands, for as many as there are: 0 anywhere, by its strides; 1 it has the
//           output's type and layout (RESIDUAL 1; one at most); 2 a dense row [n], which repeats. Not defined: 0
// Notes     Sums are scaled, the bias is added, then the epilogue runs.
#pragma once
#include "common/epilogue.cuh"
#include "common/types.cuh"

#if !defined(HAS_BIAS)
#error "HAS_BIAS is not defined"
#endif
#ifndef BIAS_ROWS
#define BIAS_ROWS 0
#endif
#ifndef RESIDUAL
#define RESIDUAL 0
#endif
#if N_EXTRA > 0 && !defined(EXTRA_KIND0)
#define EXTRA_KIND0 0
#endif
#if N_EXTRA > 1 && !defined(EXTRA_KIND1)
#define EXTRA_KIND1 0
#endif
#if N_EXTRA > 2 && !defined(EXTRA_KIND2)
#define EXTRA_KIND2 0
#endif
#if N_EXTRA > 3 && !defined(EXTRA_KIND3)
#define EXTRA_KIND3 0
#endif
#if N_EXTRA < 1
#undef EXTRA_KIND0
#define EXTRA_KIND0 -1
#define T_EXTRA0 float
#endif
#if N_EXTRA < 2
#undef EXTRA_KIND1
#define EXTRA_KIND1 -1
#define T_EXTRA1 float
#endif
#if N_EXTRA < 3
#undef EXTRA_KIND2
#define EXTRA_KIND2 -1
#define T_EXTRA2 float
#endif
#if N_EXTRA < 4
#undef EXTRA_KIND3
#define EXTRA_KIND3 -1
#define T_EXTRA3 float
#endif

static_assert((EXTRA_KIND0 == 1) + (EXTRA_KIND1 == 1) + (EXTRA_KIND2 == 1) + (EXTRA_KIND3 == 1) == RESIDUAL, "one residual, or none");

template <class Place> struct TileFinish
{
    static constexpr bool READS = EXTRA_KIND0 == 0 || EXTRA_KIND1 == 0 || EXTRA_KIND2 == 0 || EXTRA_KIND3 == 0;
    // As they lie in memory: a conversion here would wait for each load before the next.
    struct Column
    {
        T_BIAS bias;
        T_EXTRA0 e0;
        T_EXTRA1 e1;
        T_EXTRA2 e2;
        T_EXTRA3 e3;
    };
    typedef float Row;

    const Epilogue& epilogue_of;
    const T_BIAS* bias_at;
    float alpha;
    Place place;

    DEVICE void tile(i32 z) { place.tile(z); }

    DEVICE void columns(i32 n, Column (&c)[2]) const
    {
#pragma unroll
        for (int o = 0; o < 2; o++) {
            if (HAS_BIAS && !BIAS_ROWS) c[o].bias = bias_at[n + o];
            if (EXTRA_KIND0 == 2) c[o].e0 = ((const T_EXTRA0*)epilogue_of.e[0])[n + o];
            if (EXTRA_KIND1 == 2) c[o].e1 = ((const T_EXTRA1*)epilogue_of.e[1])[n + o];
            if (EXTRA_KIND2 == 2) c[o].e2 = ((const T_EXTRA2*)epilogue_of.e[2])[n + o];
            if (EXTRA_KIND3 == 2) c[o].e3 = ((const T_EXTRA3*)epilogue_of.e[3])[n + o];
        }
    }

    DEVICE Row row(i32 m) const { return HAS_BIAS && BIAS_ROWS ? to_acc<float>(bias_at[m]) : 0; }

    DEVICE const T_OUT* residual() const
    {
        return (const T_OUT*)epilogue_of.e[EXTRA_KIND1 == 1 ? 1 : EXTRA_KIND2 == 1 ? 2 : EXTRA_KIND3 == 1 ? 3 : 0];
    }

    template <int KIND, class T> DEVICE float extra(int j, T column, float residual, i32 m, i32 n) const
    {
        if constexpr (KIND < 0) return 0;
        else if constexpr (KIND == 1) return residual;
        else if constexpr (KIND == 2) return to_acc<float>(column);
        else {
            i32 c[5];
            place.coords(m, n, c);
            return epilogue_of.template extra<T>(j, c[0], c[1], c[2], c[3], c[4]);
        }
    }

    DEVICE float apply(float x, const Column& column, Row row, float residual, i32 m, i32 n) const
    {
        x *= alpha;
        if (HAS_BIAS) x += BIAS_ROWS ? row : to_acc<float>(column.bias);
        return epilogue_of.run(x, extra<EXTRA_KIND0, T_EXTRA0>(0, column.e0, residual, m, n), extra<EXTRA_KIND1, T_EXTRA1>(1, column.e1, residual, m, n),
                               extra<EXTRA_KIND2, T_EXTRA2>(2, column.e2, residual, m, n), extra<EXTRA_KIND3, T_EXTRA3>(3, column.e3, residual, m, n));
    }
};
