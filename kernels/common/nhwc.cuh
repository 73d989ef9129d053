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

// V neighbouring channels as they lie in memory.
template <int V, class T> struct Channels
{
    typename VecAccess<V, T>::Bits bits;

    DEVICE void clear()
    {
#pragma unroll
        for (int i = 0; i < V; i++) bits.v[i] = T{};
    }

    DEVICE void load(const T* g)
    {
        typedef typename VecAccess<V, T>::raw raw;
#pragma unroll
        for (int i = 0; i < VecAccess<V, T>::COUNT; i++) bits.r[i] = ((const raw*)g)[i];
    }

    DEVICE void unpack(float (&r)[V]) const { unpack_as(Tag<T>(), r); }

  private:
    template <class U> DEVICE void unpack_as(Tag<U>, float (&r)[V]) const
    {
#pragma unroll
        for (int i = 0; i < V; i++) r[i] = to_acc<float>(bits.v[i]);
    }

    DEVICE void unpack_as(Tag<f16>, float (&r)[V]) const
    {
        if constexpr (V >= 2) {
            const u32* words = (const u32*)&bits;
#pragma unroll
            for (int i = 0; i < V; i += 2) cvt_f32_f16(r[i], r[i + 1], words[i / 2]);
        } else {
            r[0] = to_acc<float>(bits.v[0]);
        }
    }

    DEVICE void unpack_as(Tag<bf16>, float (&r)[V]) const
    {
        if constexpr (V >= 2) {
            const u32* words = (const u32*)&bits;
#pragma unroll
            for (int i = 0; i < V; i += 2) {
                r[i] = __uint_as_float(words[i / 2] << 16);
                r[i + 1] = __uint_as_float(words[i / 2] & 0xffff0000u);
            }
        } else {
            r[0] = to_acc<float>(bits.v[0]);
        }
    }
};

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

// Where a result of a tile goes.
struct Place
{
    bool inside;
    i32 image, channel, pixel;
    i64 offset;
};

// The bias of the channels that a lane holds of fragments side by side (common/mma_sm80.cuh); 0 past the last channel.
template <int N> DEVICE void bias_fragment(float (&r)[N][2], const T_BIAS* bias, i32 channel, i32 channels)
{
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
#if HAS_BIAS
            const i32 c = channel + j * 8 + threadIdx.x % 4 * 2 + i;
            r[j][i] = c < channels ? to_acc<float>(bias[c]) : 0;
#else
            r[j][i] = 0;
#endif
        }
}

// Finishes and stores 16 pixels x 8*N channels of a warp, V channels at once, by way of its own shared memory of 16 rows of
// 8*N + 8 floats. place(row, column) says where. Without operands the epilogue comes first and results are staged as they
// are stored; else sums are staged, and operands read as vectors.
template <int V, int N, class F>
DEVICE void store_fragments(float* s_warp, const float (&acc)[N][4], const float (&b)[N][2], const Epilogue& e, T_OUT* y, const F& place)
{
    constexpr int PITCH_OUT = 8 * N + 8, ACROSS = 8 * N / V;
    const int lane = threadIdx.x % 32;
#if N_EXTRA == 0
    typedef T_OUT Staged;
#else
    typedef float Staged;
#endif
    Staged* s = (Staged*)s_warp;
    __syncwarp();
#pragma unroll
    for (int j = 0; j < N; j++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            Staged pair[2];
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float v = acc[j][half * 2 + i] + b[j][i];
#if N_EXTRA == 0
                pair[i] = from_acc<T_OUT>(e.apply(v, 0, 0, 0, 0, 0));
#else
                pair[i] = v;
#endif
            }
            store_vec(s + (lane / 4 + half * 8) * PITCH_OUT + j * 8 + lane % 4 * 2, pair);
        }
    }
    __syncwarp();
#pragma unroll
    for (int i = lane; i < 16 * ACROSS; i += 32) {
        const int row = i / ACROSS, column = i % ACROSS * V;
        const Place at = place(row, column);
        if (!at.inside) continue;
        Staged v[V];
        load_vec(v, s + row * PITCH_OUT + column);
#if N_EXTRA == 0
        store_vec(y + at.offset, v);
#else
        apply_channels(v, e, at.image, at.channel, at.pixel);
        store_channels(y + at.offset, v);
#endif
    }
}
