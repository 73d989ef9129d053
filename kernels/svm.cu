// svm.cu — support vector machines:  y[r, i] = function(x[r], v[i])   or   y[r, c] = probability of class c from pairwise decisions
// Args     MODE 0: x: float [rows, features = extra] · v: float [n, features] · b null · y: float [rows, n] · work null · rows,
//          n, extra: i64 · gamma, coef0, degree: float
//          MODE 1: x: float [rows, pairs = extra] decisions · v, b: float [pairs] of the sigmoids · y: float [rows, n classes] ·
//          work: float [all threads, 2*n*n + n] · rows, n, extra: i64 · three floats that are not used
// Params   MODE {0: kernel function, 1: probabilities} · FUNCTION {LINEAR 0, POLY 1, RBF 2, SIGMOID 3} · THREADS {128,256}
// Requires nothing more
// Launch   grid = min(ceil(work/THREADS), a bound; the kernel strides), work = rows*n or rows · block = THREADS · smem = 0
// Numerics f32; MODE 0 adds up in double. MODE 1 rounds each operation as the host does, since it stops at a tolerance
// Notes    the iteration is that of Wu, Lin and Weng (2004), as libsvm has it
#if !defined(MODE) || !defined(FUNCTION) || !defined(THREADS)
#error "MODE, FUNCTION or THREADS is not defined"
#endif
#include "common/math.cuh"

// Without contraction into fused multiply-adds, so that the host gets the same numbers.
DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
DEVICE float add(float a, float b) { return __fadd_rn(a, b); }

extern "C" __global__ void __launch_bounds__(THREADS)
KERNEL_NAME(const float* x, const float* v, const float* b, float* y, float* work, const i64 rows, const i64 n, const i64 extra,
            const float gamma, const float coef0, const float degree)
{
    griddepcontrol_wait();
    const i64 thread = (i64)blockIdx.x * THREADS + threadIdx.x, stride = (i64)gridDim.x * THREADS;
#if MODE == 0
    for (i64 at = thread; at < rows * n; at += stride) {
        const float *g_x = x + at / n * extra, *g_v = v + at % n * extra;
        double sum = 0;
        for (i64 f = 0; f < extra; f++) {
            const double a = g_x[f], c = g_v[f];
            sum += FUNCTION == 2 ? (a - c) * (a - c) : a * c;
        }
        const double d = (double)gamma * sum + (double)coef0;
        y[at] = (float)(FUNCTION == 0 ? sum : FUNCTION == 1 ? op::pow(d, (double)degree) : FUNCTION == 2 ? op::exp(-(double)gamma * sum) : op::tanh(d));
    }
#else
    float* r = work + thread * (2 * n * n + n);  // [n, n] probability of the one class against the other
    float *q = r + n * n, *qp = q + n * n;
    for (i64 row = thread; row < rows; row += stride) {
        float* p = y + row * n;
        i64 at = 0;
        for (i64 i = 0; i < n; i++) {
            for (i64 j = i + 1; j < n; j++, at++) {
                const float s = add(mul(x[row * extra + at], v[at]), b[at]);
                const float e = 1.0f / add(1.0f, op::exp(-op::abs(s)));
                const float l = 1.0f - (s < 0.0f ? 1.0f - e : e);
                const float c = l < 1e-7f ? 1e-7f : l > 1.0f - 1e-7f ? 1.0f - 1e-7f : l;
                r[i * n + j] = c;
                r[j * n + i] = 1.0f - c;
            }
        }
        for (i64 t = 0; t < n; t++) {
            p[t] = 1.0f / (float)n;
            float sum = 0;
            for (i64 j = 0; j < n; j++) {
                if (j == t) continue;
                sum = add(sum, mul(r[j * n + t], r[j * n + t]));
                q[t * n + j] = j < t ? q[j * n + t] : -mul(r[j * n + t], r[t * n + j]);
            }
            q[t * n + t] = sum;
        }
        const float eps = 0.005f / (float)n;
        for (i64 turn = 0; turn < (n > 100 ? n : 100); turn++) {
            float pqp = 0, error = 0;
            for (i64 t = 0; t < n; t++) {
                float sum = 0;
                for (i64 j = 0; j < n; j++) sum = add(sum, mul(q[t * n + j], p[j]));
                qp[t] = sum;
                pqp = add(pqp, mul(p[t], sum));
            }
            for (i64 t = 0; t < n; t++) {
                const float e = op::abs(qp[t] - pqp);
                error = e > error ? e : error;
            }
            if (error < eps) break;
            for (i64 t = 0; t < n; t++) {
                const float diff = (pqp - qp[t]) / q[t * n + t], scale = add(1.0f, diff);
                p[t] = add(p[t], diff);
                pqp = add(pqp, mul(diff, add(mul(diff, q[t * n + t]), mul(2.0f, qp[t])))) / scale / scale;
                for (i64 j = 0; j < n; j++) {
                    qp[j] = add(qp[j], mul(diff, q[t * n + j])) / scale;
                    p[j] = p[j] / scale;
                }
            }
        }
    }
#endif
}
