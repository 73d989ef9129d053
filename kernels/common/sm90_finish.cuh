// sm90_finish.cuh — bias and generated epilogue as the Finish of common/sm90_tile.cuh, for products and convolutions.
//
// Contract  The including file defines T_OUT, the parameters below and ACC as float, and gives a place: tile(z) of the tile, and
//           coords(m, n, c[5]): the coordinates of common/epilogue.cuh of an element.
// Params    HAS_BIAS, BIAS_ROWS {0,1} (bias of a row instead of a column), T_BIAS · EPILOGUE as in common/epilogue.cuh ·
//           EXTRA_KIND0..3 of the epilogue's operands, for as many as there are: 0 anywhere, by its strides; 1 it has the
//           output's type and layout (RESIDUAL 1; one at most); 2 a dense row [n], which repeats. Not defined: 0 ·
//           PAIRS {0,1} (not defined: 0): bias and operands of kind 2 start at multiples of 2 elements
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
#ifndef PAIRS
#define PAIRS 0
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
    // Two neighbours, as they lie in memory: conversions wait for the loads.
    struct Columns
    {
        T_BIAS bias[2];
        T_EXTRA0 extra0[2];
        T_EXTRA1 extra1[2];
        T_EXTRA2 extra2[2];
        T_EXTRA3 extra3[2];
    };
    typedef T_BIAS Row;

    const Epilogue& epilogue_of;
    const T_BIAS* bias_at;
    float alpha;
    Place place;

    DEVICE void tile(i32 z) { place.tile(z); }

    template <class T> DEVICE static void load_pair(T (&v)[2], const void* at, i32 n)
    {
        const T* g = (const T*)at + n;
#if PAIRS
        load_vec<2>(v, g);
#else
        v[0] = g[0], v[1] = g[1];
#endif
    }

    DEVICE Columns columns(i32 n) const
    {
        Columns c;
        if (HAS_BIAS && !BIAS_ROWS) load_pair(c.bias, bias_at, n);
        if (EXTRA_KIND0 == 2) load_pair(c.extra0, epilogue_of.e[0], n);
        if (EXTRA_KIND1 == 2) load_pair(c.extra1, epilogue_of.e[1], n);
        if (EXTRA_KIND2 == 2) load_pair(c.extra2, epilogue_of.e[2], n);
        if (EXTRA_KIND3 == 2) load_pair(c.extra3, epilogue_of.e[3], n);
        return c;
    }

    DEVICE Row row(i32 m) const
    {
        Row r;
        if (HAS_BIAS && BIAS_ROWS) r = bias_at[m];
        return r;
    }

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

    DEVICE float apply(float x, const Columns& c, int odd, Row row, float residual, i32 m, i32 n) const
    {
        x *= alpha;
        if (HAS_BIAS) x += to_acc<float>(BIAS_ROWS ? row : c.bias[odd]);
        return epilogue_of.run(x, extra<EXTRA_KIND0, T_EXTRA0>(0, c.extra0[odd], residual, m, n),
                               extra<EXTRA_KIND1, T_EXTRA1>(1, c.extra1[odd], residual, m, n),
                               extra<EXTRA_KIND2, T_EXTRA2>(2, c.extra2[odd], residual, m, n),
                               extra<EXTRA_KIND3, T_EXTRA3>(3, c.extra3[odd], residual, m, n));
    }
};
