// nhwc.cuh — what convolutions with channels last share: bias, epilogue and stores of several channels of a pixel at once.
//
// Contract  The including file defines ACC as float, T_IN, T_OUT, T_BIAS, HAS_BIAS, EPILOGUE. Coordinates of the epilogue are
//           (image, channel, pixel, 0, 0).
// Notes     An operand that has neighbouring channels side by side is read as one vector; it may still alias the output,
//           since a thread reads all that it then writes.
#pragma once
#include "common/epilogue.cuh"
#include "common/types.cuh"

struct Magic
{
    u32 magic, shift;
};

// As common/index.cuh: right for 0 <= n < 2^31.
DEVICE u32 divide(u32 n, const Magic& d) { return (__umulhi(n, d.magic) + n) >> d.shift; }

template <int V, class T> DEVICE void extra_channels(float (&r)[V], const void* e, const i64 (&s)[5], i32 image, i32 channel, i32 pixel)
{
    const T* at = (const T*)e + image * s[0] + channel * s[1] + pixel * s[2];
    if (s[1] == 1 && is_aligned<V>(at)) {
        T t[V];
        load_vec(t, at);
#pragma unroll
        for (int i = 0; i < V; i++) r[i] = to_acc<float>(t[i]);
    } else if (s[1] == 0) {
        const float v = to_acc<float>(*at);
#pragma unroll
        for (int i = 0; i < V; i++) r[i] = v;
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) r[i] = to_acc<float>(at[i * s[1]]);
    }
}

// The epilogue of V neighbouring channels.
template <int V> DEVICE void apply_channels(float (&x)[V], const Epilogue& e, i32 image, i32 channel, i32 pixel)
{
#if EPILOGUE
#if N_EXTRA > 0
    float v0[V];
    extra_channels<V, T_EXTRA0>(v0, e.e[0], e.strides.s[0], image, channel, pixel);
#endif
#if N_EXTRA > 1
    float v1[V];
    extra_channels<V, T_EXTRA1>(v1, e.e[1], e.strides.s[1], image, channel, pixel);
#endif
#if N_EXTRA > 2
    float v2[V];
    extra_channels<V, T_EXTRA2>(v2, e.e[2], e.strides.s[2], image, channel, pixel);
#endif
#if N_EXTRA > 3
    float v3[V];
    extra_channels<V, T_EXTRA3>(v3, e.e[3], e.strides.s[3], image, channel, pixel);
#endif
#pragma unroll
    for (int i = 0; i < V; i++) {
#if N_EXTRA == 0
        x[i] = epilogue(x[i]);
#elif N_EXTRA == 1
        x[i] = epilogue(x[i], v0[i]);
#elif N_EXTRA == 2
        x[i] = epilogue(x[i], v0[i], v1[i]);
#elif N_EXTRA == 3
        x[i] = epilogue(x[i], v0[i], v1[i], v2[i]);
#else
        x[i] = epilogue(x[i], v0[i], v1[i], v2[i], v3[i]);
#endif
    }
#endif
}

// The bias of V neighbouring channels, 0 without one.
template <int V> DEVICE void bias_channels(float (&r)[V], const T_BIAS* bias, i32 channel)
{
#if HAS_BIAS
    T_BIAS t[V];
    load_vec(t, bias + channel);
#pragma unroll
    for (int i = 0; i < V; i++) r[i] = to_acc<float>(t[i]);
#else
#pragma unroll
    for (int i = 0; i < V; i++) r[i] = 0;
#endif
}

template <int V> DEVICE void store_channels(T_OUT* g, const float (&x)[V])
{
    T_OUT t[V];
#pragma unroll
    for (int i = 0; i < V; i++) t[i] = from_acc<T_OUT>(x[i]);
    store_vec(g, t);
}
