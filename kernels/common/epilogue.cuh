// epilogue.cuh — what happens to an accumulated value between the product and memory: bias, then a generated expression.
//
// Contract  The including file defines ACC (type) and takes, as its last parameters,
//               const void* e0, const void* e1, const void* e2, const void* e3, const EpilogueStrides epi
//           (null where absent). EPILOGUE 0: nothing is generated. EPILOGUE 1: "generated.cuh" defines
//               N_EXTRA 0..4, T_EXTRA0.. element types of the extra operands, and
//               DEVICE ACC epilogue(ACC x, ACC e0, .., ACC e<N_EXTRA-1>)
//           with the names of common/math.cuh at hand. Extra operand j is read at
//               sum over d of coord[d] * epi.s[j][d]            (elements; 0 broadcasts)
//           where coord is (b0, b1, b2, m, n) in a product and (image, channel, pixel, 0, 0) in a convolution, pixel
//           being the flat output position. EpilogueStrides is a 64-bit struct of 20.
// Notes     An extra operand may alias the output where both have the same strides: each element is read before it is
//           written, by the same thread.
#pragma once
#include "common/math.cuh"
#include "common/types.cuh"

#ifndef EPILOGUE
#error "EPILOGUE (0: none, 1: generated) is not defined"
#endif

#if EPILOGUE
#include "generated.cuh"
#else
#define N_EXTRA 0
#endif

struct EpilogueStrides
{
    i64 s[4][5];
};

struct Epilogue
{
    const void* e[4];
    const EpilogueStrides& strides;

    template <class T> DEVICE ACC extra(int j, i32 c0, i32 c1, i32 c2, i32 c3, i32 c4) const
    {
        const i64(&s)[5] = strides.s[j];
        return to_acc<ACC>(((const T*)e[j])[c0 * s[0] + c1 * s[1] + c2 * s[2] + c3 * s[3] + c4 * s[4]]);
    }

    // The epilogue with the values of its operands; those that it has not are ignored.
    DEVICE ACC run(ACC x, ACC v0, ACC v1, ACC v2, ACC v3) const
    {
#if !EPILOGUE
        return x;
#elif N_EXTRA == 0
        return epilogue(x);
#elif N_EXTRA == 1
        return epilogue(x, v0);
#elif N_EXTRA == 2
        return epilogue(x, v0, v1);
#elif N_EXTRA == 3
        return epilogue(x, v0, v1, v2);
#else
        return epilogue(x, v0, v1, v2, v3);
#endif
    }

    DEVICE ACC apply(ACC x, i32 c0, i32 c1, i32 c2, i32 c3, i32 c4) const
    {
        ACC v0 = 0, v1 = 0, v2 = 0, v3 = 0;
#if N_EXTRA > 0
        v0 = extra<T_EXTRA0>(0, c0, c1, c2, c3, c4);
#endif
#if N_EXTRA > 1
        v1 = extra<T_EXTRA1>(1, c0, c1, c2, c3, c4);
#endif
#if N_EXTRA > 2
        v2 = extra<T_EXTRA2>(2, c0, c1, c2, c3, c4);
#endif
#if N_EXTRA > 3
        v3 = extra<T_EXTRA3>(3, c0, c1, c2, c3, c4);
#endif
        return run(x, v0, v1, v2, v3);
    }
};
