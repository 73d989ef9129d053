/* Every function that adds a layer: a network of that layer alone is built and run, and the numbers are compared with ones
 * that are computed here in the plainest way. */
#include <sinter.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

static int n_checks, n_wrong;
static SinterDevice *device;
static SinterNetwork *net;

#define F32 SINTER_DATA_TYPE_FLOAT32
#define TRY(call) must((call), #call, __LINE__)

static void must(SinterStatus status, const char *call, int line) {
  if (status == SINTER_STATUS_OK) return;
  n_wrong++;
  printf("line %d: %s\n  %s\n", line, call, sinter_last_error_message());
}

/* The input of all cases: x[i] = i * 0.25 - 2.5, 24 elements. */
static float x_at(int i) { return (float)i * 0.25f - 2.5f; }

static SinterTensorId input(const int64_t *dims, size_t n_dims) {
  SinterTensorId t = -7;
  TRY(sinter_network_create("case", &net));
  TRY(sinter_network_add_input(net, "x", F32, dims, n_dims, NULL, &t));
  return t;
}

static SinterTensorId constant(SinterDataType type, const int64_t *dims, size_t n_dims, const void *data, size_t bytes) {
  SinterTensorId t = -7;
  TRY(sinter_network_add_constant(net, NULL, type, dims, n_dims, data, bytes, &t));
  return t;
}

/* Builds, runs on 24 elements, compares with `want` (n elements of shape dims), and destroys the network. */
static void run(const char *what, SinterTensorId y, const int64_t *dims, size_t n_dims, const float *want, int n) {
  float x[24], got[256] = {0};
  int64_t shape[8] = {0};
  size_t rank = 0;
  SinterBuilder *builder = NULL;
  SinterEngine *engine = NULL;
  SinterContext *context = NULL;
  for (int i = 0; i < 24; i++) x[i] = x_at(i);
  TRY(sinter_network_mark_output(net, y, "y"));
  TRY(sinter_builder_create(device, &builder));
  TRY(sinter_builder_build_engine(builder, net, NULL, &engine));
  TRY(sinter_context_create(engine, &context));
  TRY(sinter_context_bind(context, "x", x));
  TRY(sinter_context_bind(context, "y", got));
  TRY(sinter_context_execute(context));
  TRY(sinter_context_query_tensor_shape(context, "y", shape, 8, &rank));
  n_checks++;
  int fine = rank == n_dims;
  for (size_t i = 0; fine && i < n_dims; i++) fine = shape[i] == dims[i];
  if (!fine) {
    n_wrong++;
    printf("%s: the shape is wrong: rank %zu, [%d, %d, %d, %d]\n", what, rank, (int)shape[0], (int)shape[1], (int)shape[2], (int)shape[3]);
  }
  for (int i = 0; i < n; i++) {
    double error = fabs((double)got[i] - (double)want[i]);
    if (!(error <= 1e-5 + 1e-5 * fabs((double)want[i]))) {
      n_wrong++;
      printf("%s: element %d is %g, expected %g\n", what, i, (double)got[i], (double)want[i]);
      break;
    }
  }
  TRY(sinter_context_destroy(context));
  TRY(sinter_engine_destroy(engine));
  TRY(sinter_builder_destroy(builder));
  TRY(sinter_network_destroy(net));
  net = NULL;
}

static const int64_t IMAGE[] = {1, 2, 3, 4}, TABLE[] = {4, 6}, LINE[] = {24};

static void windows(void) {
  float want[256];
  SinterTensorId x, y = -7, w, b;
  /* Convolution: 2 channels to 3, window 2x2, padding 1 in front, stride 2 in x. */
  SinterWindow win;
  memset(&win, 0, sizeof win);
  win.struct_size = sizeof win;
  win.pad_begin[0] = win.pad_begin[1] = 1;
  win.stride[0] = 1, win.stride[1] = 2;
  float weights[3 * 2 * 2 * 2], bias[3] = {0.5f, -1.0f, 2.0f};
  for (int i = 0; i < 24; i++) weights[i] = (float)(i % 5) - 2.0f;
  const int64_t w_dims[] = {3, 2, 2, 2}, b_dims[] = {3}, conv_out[] = {1, 3, 3, 2};
  x = input(IMAGE, 4);
  w = constant(F32, w_dims, 4, weights, sizeof weights);
  b = constant(F32, b_dims, 1, bias, sizeof bias);
  TRY(sinter_network_add_convolution(net, "conv", x, w, b, &win, &y));
  for (int k = 0; k < 3; k++)
    for (int oy = 0; oy < 3; oy++)
      for (int ox = 0; ox < 2; ox++) {
        float sum = bias[k];
        for (int c = 0; c < 2; c++)
          for (int fy = 0; fy < 2; fy++)
            for (int fx = 0; fx < 2; fx++) {
              int iy = oy + fy - 1, ix = 2 * ox + fx - 1;
              if (iy >= 0 && iy < 3 && ix >= 0 && ix < 4) sum += weights[((k * 2 + c) * 2 + fy) * 2 + fx] * x_at((c * 3 + iy) * 4 + ix);
            }
        want[(k * 3 + oy) * 2 + ox] = sum;
      }
  run("convolution", y, conv_out, 4, want, 18);

  /* Deconvolution: 2 channels to 1, window 2x2, stride 2. */
  const int64_t d_dims[] = {2, 1, 2, 2}, deconv_out[] = {1, 1, 6, 8};
  memset(&win, 0, sizeof win);
  win.struct_size = sizeof win;
  win.stride[0] = win.stride[1] = 2;
  x = input(IMAGE, 4);
  w = constant(F32, d_dims, 4, weights, 8 * sizeof(float));
  TRY(sinter_network_add_deconvolution(net, "deconv", x, w, SINTER_NO_TENSOR, &win, &y));
  for (int oy = 0; oy < 6; oy++)
    for (int ox = 0; ox < 8; ox++) {
      float sum = 0.0f;
      for (int c = 0; c < 2; c++) sum += weights[(c * 2 + oy % 2) * 2 + ox % 2] * x_at((c * 3 + oy / 2) * 4 + ox / 2);
      want[oy * 8 + ox] = sum;
    }
  run("deconvolution", y, deconv_out, 4, want, 48);

  /* Pooling: window 2x2, stride 1. */
  const int64_t size[] = {2, 2}, pool_out[] = {1, 2, 2, 3}, global_out[] = {1, 2, 1, 1};
  for (int kind = 0; kind < 2; kind++) {
    x = input(IMAGE, 4);
    TRY(sinter_network_add_pooling(net, NULL, kind, x, size, 2, NULL, &y));
    for (int c = 0; c < 2; c++)
      for (int oy = 0; oy < 2; oy++)
        for (int ox = 0; ox < 3; ox++) {
          int first = (c * 3 + oy) * 4 + ox;
          float mean = (x_at(first) + x_at(first + 1) + x_at(first + 4) + x_at(first + 5)) / 4.0f;
          want[(c * 2 + oy) * 3 + ox] = kind == SINTER_POOLING_MAX ? x_at(first + 5) : mean;
        }
    run(kind == 0 ? "max pooling" : "average pooling", y, pool_out, 4, want, 12);
    x = input(IMAGE, 4);
    TRY(sinter_network_add_global_pooling(net, NULL, kind, x, &y));
    for (int c = 0; c < 2; c++) want[c] = kind == SINTER_POOLING_MAX ? x_at(12 * c + 11) : (x_at(12 * c) + x_at(12 * c + 11)) / 2.0f;
    run(kind == 0 ? "global max" : "global average", y, global_out, 4, want, 2);
  }
}

static void products(void) {
  float want[256], weights[18], bias[3] = {1.0f, 2.0f, 3.0f};
  SinterTensorId x, y = -7, w, b;
  for (int i = 0; i < 18; i++) weights[i] = (float)(i % 7) - 3.0f;
  const int64_t w_dims[] = {3, 6}, b_dims[] = {3}, out[] = {4, 3}, t_dims[] = {4, 3}, t_out[] = {6, 3};
  for (int biased = 0; biased < 3; biased++) {
    x = input(TABLE, 2);
    w = constant(F32, w_dims, 2, weights, sizeof weights);
    b = biased == 1 ? constant(F32, b_dims, 1, bias, sizeof bias) : SINTER_NO_TENSOR;
    if (biased < 2)
      TRY(sinter_network_add_fully_connected(net, NULL, x, w, b, &y));
    else
      TRY(sinter_network_add_matrix_multiply(net, NULL, x, 0, w, 1, &y));
    for (int i = 0; i < 4; i++)
      for (int j = 0; j < 3; j++) {
        float sum = biased == 1 ? bias[j] : 0.0f;
        for (int k = 0; k < 6; k++) sum += x_at(6 * i + k) * weights[6 * j + k];
        want[3 * i + j] = sum;
      }
    run("fully connected", y, out, 2, want, 12);
  }
  x = input(TABLE, 2);
  w = constant(F32, t_dims, 2, weights, 12 * sizeof(float));
  TRY(sinter_network_add_matrix_multiply(net, NULL, x, 1, w, 0, &y));
  for (int i = 0; i < 6; i++)
    for (int j = 0; j < 3; j++) {
      want[3 * i + j] = 0.0f;
      for (int k = 0; k < 4; k++) want[3 * i + j] += x_at(6 * k + i) * weights[3 * k + j];
    }
  run("transposed product", y, t_out, 2, want, 18);
  /* Flattening: [1, 2, 3, 4] is [1, 24]. */
  const int64_t f_dims[] = {1, 24}, f_out[] = {1, 1};
  float ones[24];
  for (int i = 0; i < 24; i++) ones[i] = 1.0f;
  x = input(IMAGE, 4);
  w = constant(F32, f_dims, 2, ones, sizeof ones);
  TRY(sinter_network_add_fully_connected(net, NULL, x, w, SINTER_NO_TENSOR, &y));
  want[0] = (x_at(0) + x_at(23)) * 12.0f;
  run("flattened", y, f_out, 2, want, 1);
}

static double activation(int kind, double v, double a, double b) {
  double softplus = log1p(exp(v)), e = exp(v);
  switch (kind) {
    case SINTER_ACTIVATION_RELU: return v > 0 ? v : 0;
    case SINTER_ACTIVATION_SIGMOID: return 1 / (1 + exp(-v));
    case SINTER_ACTIVATION_TANH: return tanh(v);
    case SINTER_ACTIVATION_LEAKY_RELU: return v < 0 ? a * v : v;
    case SINTER_ACTIVATION_ELU: return v < 0 ? a * (e - 1) : v;
    case SINTER_ACTIVATION_SELU: return b * (v < 0 ? a * (e - 1) : v);
    case SINTER_ACTIVATION_CELU: return v < 0 ? a * (exp(v / a) - 1) : v;
    case SINTER_ACTIVATION_CLIP: return v < a ? a : v > b ? b : v;
    case SINTER_ACTIVATION_SOFTPLUS: return softplus;
    case SINTER_ACTIVATION_SOFTSIGN: return v / (1 + fabs(v));
    case SINTER_ACTIVATION_HARD_SIGMOID: return fmax(0, fmin(1, a * v + b));
    case SINTER_ACTIVATION_HARD_SWISH: return v * fmax(0, fmin(1, v / 6 + 0.5));
    case SINTER_ACTIVATION_THRESHOLDED_RELU: return v > a ? v : 0;
    case SINTER_ACTIVATION_GELU_ERF: return v / 2 * (1 + erf(v / sqrt(2)));
    case SINTER_ACTIVATION_GELU_TANH: return v / 2 * (1 + tanh(sqrt(2 / 3.14159265358979) * (v + 0.044715 * v * v * v)));
    case SINTER_ACTIVATION_SILU: return v / (1 + exp(-v));
    case SINTER_ACTIVATION_MISH: return v * tanh(softplus);
    case SINTER_ACTIVATION_SHRINK: return v < -a ? v + b : v > a ? v - b : 0;
    default: return NAN;
  }
}

static double binary(int kind, double a, double b) {
  switch (kind) {
    case SINTER_BINARY_ADD: return a + b;
    case SINTER_BINARY_SUB: return a - b;
    case SINTER_BINARY_MUL: return a * b;
    case SINTER_BINARY_DIV: return a / b;
    case SINTER_BINARY_POW: return pow(a, b);
    case SINTER_BINARY_MIN: return fmin(a, b);
    case SINTER_BINARY_MAX: return fmax(a, b);
    case SINTER_BINARY_EQUAL: return a == b;
    case SINTER_BINARY_LESS: return a < b;
    case SINTER_BINARY_LESS_EQUAL: return a <= b;
    case SINTER_BINARY_GREATER: return a > b;
    case SINTER_BINARY_GREATER_EQUAL: return a >= b;
    default: return NAN;
  }
}

static double unary(int kind, double v) {
  switch (kind) {
    case SINTER_UNARY_NEG: return -v;
    case SINTER_UNARY_ABS: return fabs(v);
    case SINTER_UNARY_SIGN: return (v > 0) - (v < 0);
    case SINTER_UNARY_EXP: return exp(v);
    case SINTER_UNARY_RECIPROCAL: return 1 / v;
    case SINTER_UNARY_FLOOR: return floor(v);
    case SINTER_UNARY_CEIL: return ceil(v);
    case SINTER_UNARY_ROUND: return rint(v);
    case SINTER_UNARY_ERF: return erf(v);
    case SINTER_UNARY_SIN: return sin(v);
    case SINTER_UNARY_COS: return cos(v);
    case SINTER_UNARY_TAN: return tan(v);
    case SINTER_UNARY_ATAN: return atan(v);
    case SINTER_UNARY_SINH: return sinh(v);
    case SINTER_UNARY_COSH: return cosh(v);
    case SINTER_UNARY_ASINH: return asinh(v);
    default: return NAN;
  }
}

static void functions(void) {
  float want[256];
  char what[64];
  SinterTensorId x, y = -7, c;
  for (int kind = SINTER_ACTIVATION_RELU; kind <= SINTER_ACTIVATION_SHRINK; kind++) {
    snprintf(what, sizeof what, "activation %d", kind);
    x = input(LINE, 1);
    TRY(sinter_network_add_activation(net, NULL, kind, x, 0.3f, 0.7f, &y));
    for (int i = 0; i < 24; i++) want[i] = (float)activation(kind, (double)x_at(i), (double)0.3f, (double)0.7f);
    run(what, y, LINE, 1, want, 24);
  }
  const int64_t one[] = {1};
  float other = 2.0f;
  for (int kind = SINTER_BINARY_ADD; kind <= SINTER_BINARY_GREATER_EQUAL; kind++) {
    if (kind == SINTER_BINARY_MOD) continue; /* of integers: below */
    snprintf(what, sizeof what, "binary %d", kind);
    x = input(LINE, 1);
    c = constant(F32, one, 1, &other, sizeof other);
    TRY(sinter_network_add_binary(net, NULL, kind, x, c, &y));
    if (kind >= SINTER_BINARY_EQUAL) TRY(sinter_network_add_cast(net, NULL, y, F32, &y));
    for (int i = 0; i < 24; i++) want[i] = (float)binary(kind, (double)x_at(i), 2.0);
    run(what, y, LINE, 1, want, 24);
  }
  const int defined[] = {
      SINTER_UNARY_NEG,   SINTER_UNARY_ABS, SINTER_UNARY_SIGN, SINTER_UNARY_EXP, SINTER_UNARY_FLOOR, SINTER_UNARY_CEIL,
      SINTER_UNARY_ROUND, SINTER_UNARY_ERF, SINTER_UNARY_SIN,  SINTER_UNARY_COS, SINTER_UNARY_TAN,   SINTER_UNARY_ATAN,
      SINTER_UNARY_SINH,  SINTER_UNARY_COSH, SINTER_UNARY_ASINH,
  };
  for (size_t k = 0; k < sizeof defined / sizeof *defined; k++) {
    snprintf(what, sizeof what, "unary %d", defined[k]);
    x = input(LINE, 1);
    TRY(sinter_network_add_unary(net, NULL, defined[k], x, &y));
    for (int i = 0; i < 24; i++) want[i] = (float)unary(defined[k], (double)x_at(i));
    run(what, y, LINE, 1, want, 24);
  }
  /* The functions of another domain, over x * 0.1 + 3 or x * 0.1. */
  const int positive[] = {SINTER_UNARY_LOG, SINTER_UNARY_SQRT, SINTER_UNARY_RECIPROCAL, SINTER_UNARY_ACOSH};
  const int small[] = {SINTER_UNARY_ASIN, SINTER_UNARY_ACOS, SINTER_UNARY_ATANH};
  for (int k = 0; k < 7; k++) {
    int kind = k < 4 ? positive[k] : small[k - 4];
    float scale = 0.1f, shift = k < 4 ? 3.0f : 0.0f;
    snprintf(what, sizeof what, "unary %d", kind);
    x = input(LINE, 1);
    SinterTensorId s = constant(F32, one, 1, &scale, sizeof scale), t = constant(F32, one, 1, &shift, sizeof shift);
    TRY(sinter_network_add_scale(net, NULL, x, s, t, -1, &y));
    TRY(sinter_network_add_unary(net, NULL, kind, y, &y));
    for (int i = 0; i < 24; i++) {
      double v = (double)x_at(i) * (double)scale + (double)shift;
      want[i] = (float)(k == 0 ? log(v) : k == 1 ? sqrt(v) : k == 2 ? 1 / v : k == 3 ? acosh(v) : k == 4 ? asin(v) : k == 5 ? acos(v) : atanh(v));
    }
    run(what, y, LINE, 1, want, 24);
  }
  /* Bools: (x < 1 and not x < -1) ? x : 100. */
  float hundred = 100.0f, low = -1.0f, high = 1.0f;
  SinterTensorId below_high = -7, below_low = -7, inside = -7;
  x = input(LINE, 1);
  TRY(sinter_network_add_binary(net, NULL, SINTER_BINARY_LESS, x, constant(F32, one, 1, &high, 4), &below_high));
  TRY(sinter_network_add_binary(net, NULL, SINTER_BINARY_LESS, x, constant(F32, one, 1, &low, 4), &below_low));
  TRY(sinter_network_add_unary(net, NULL, SINTER_UNARY_NOT, below_low, &below_low));
  TRY(sinter_network_add_binary(net, NULL, SINTER_BINARY_AND, below_high, below_low, &inside));
  TRY(sinter_network_add_select(net, NULL, inside, x, constant(F32, one, 1, &hundred, 4), &y));
  for (int i = 0; i < 24; i++) want[i] = x_at(i) < 1.0f && x_at(i) >= -1.0f ? x_at(i) : 100.0f;
  run("select", y, LINE, 1, want, 24);
  /* Integers: int(x) mod 3, with the sign of 3. */
  int32_t three = 3;
  x = input(LINE, 1);
  TRY(sinter_network_add_cast(net, NULL, x, SINTER_DATA_TYPE_INT32, &y));
  TRY(sinter_network_add_binary(net, NULL, SINTER_BINARY_MOD, y, constant(SINTER_DATA_TYPE_INT32, one, 1, &three, 4), &y));
  TRY(sinter_network_add_cast(net, NULL, y, F32, &y));
  for (int i = 0; i < 24; i++) want[i] = (float)((((int)x_at(i)) % 3 + 3) % 3);
  run("mod", y, LINE, 1, want, 24);
}

static void reductions(void) {
  float want[256];
  char what[64];
  SinterTensorId x, y = -7;
  const int64_t axes[] = {-1}, kept[] = {4, 1}, dropped[] = {4};
  for (int kind = SINTER_REDUCTION_SUM; kind <= SINTER_REDUCTION_L2; kind++) {
    snprintf(what, sizeof what, "reduction %d", kind);
    x = input(TABLE, 2);
    TRY(sinter_network_add_reduce(net, NULL, kind, x, axes, 1, kind % 2, &y));
    for (int i = 0; i < 4; i++) {
      double sum = 0, prod = 1, l1 = 0, l2 = 0;
      for (int k = 0; k < 6; k++) {
        double v = (double)x_at(6 * i + k);
        sum += v, prod *= v, l1 += fabs(v), l2 += v * v;
      }
      double all[] = {sum, sum / 6, (double)x_at(6 * i + 5), (double)x_at(6 * i), prod, l1, sqrt(l2)};
      want[i] = (float)all[kind];
    }
    run(what, y, kind % 2 ? kept : dropped, kind % 2 ? 2 : 1, want, 4);
  }
  x = input(TABLE, 2);
  TRY(sinter_network_add_softmax(net, NULL, x, 1, &y));
  for (int i = 0; i < 4; i++) {
    double sum = 0;
    for (int k = 0; k < 6; k++) sum += exp((double)x_at(6 * i + k));
    for (int k = 0; k < 6; k++) want[6 * i + k] = (float)(exp((double)x_at(6 * i + k)) / sum);
  }
  run("softmax", y, TABLE, 2, want, 24);
  /* Scale by channel. */
  const int64_t two[] = {2};
  const float scale[] = {2.0f, -1.0f}, shift[] = {0.5f, 10.0f};
  x = input(IMAGE, 4);
  SinterTensorId s = constant(F32, two, 1, scale, sizeof scale), t = constant(F32, two, 1, shift, sizeof shift);
  TRY(sinter_network_add_scale(net, "scale", x, s, t, 1, &y));
  for (int i = 0; i < 24; i++) want[i] = x_at(i) * scale[i / 12] + shift[i / 12];
  run("scale", y, IMAGE, 4, want, 24);
}

static void movers(void) {
  float want[256];
  SinterTensorId x, y = -7;
  const int64_t perm[] = {1, 0}, reshaped[] = {3, -1}, shuffled[] = {3, 8};
  x = input(TABLE, 2);
  TRY(sinter_network_add_shuffle(net, NULL, x, perm, 2, reshaped, 2, &y));
  for (int i = 0; i < 24; i++) want[i] = x_at((i % 4) * 6 + i / 4);
  run("shuffle", y, shuffled, 2, want, 24);

  const int64_t doubled[] = {4, 12};
  x = input(TABLE, 2);
  TRY(sinter_network_add_identity(net, NULL, x, &y));
  const SinterTensorId both[] = {x, y};
  TRY(sinter_network_add_concat(net, NULL, both, 2, 1, &y));
  for (int i = 0; i < 48; i++) want[i] = x_at((i / 12) * 6 + i % 6);
  run("concat", y, doubled, 2, want, 48);

  const int64_t start[] = {1, 5}, end[] = {3, 0}, step[] = {1, -2}, cut[] = {2, 3};
  x = input(TABLE, 2);
  TRY(sinter_network_add_slice(net, NULL, x, start, end, step, 2, &y));
  for (int i = 0; i < 2; i++)
    for (int k = 0; k < 3; k++) want[3 * i + k] = x_at(6 * (i + 1) + 5 - 2 * k);
  run("slice", y, cut, 2, want, 6);

  const int64_t n_idx[] = {3}, idx[] = {5, 0, -2}, gathered[] = {4, 3};
  x = input(TABLE, 2);
  TRY(sinter_network_add_gather(net, NULL, x, constant(SINTER_DATA_TYPE_INT64, n_idx, 1, idx, sizeof idx), 1, &y));
  for (int i = 0; i < 4; i++) want[3 * i] = x_at(6 * i + 5), want[3 * i + 1] = x_at(6 * i), want[3 * i + 2] = x_at(6 * i + 4);
  run("gather", y, gathered, 2, want, 12);

  const int64_t sizes[] = {1, 2, 6, 8};
  const float scales[] = {1.0f, 1.0f, 2.0f, 2.0f};
  for (int by_scale = 0; by_scale < 2; by_scale++) {
    x = input(IMAGE, 4);
    TRY(sinter_network_add_resize(net, NULL, SINTER_RESIZE_NEAREST, x, by_scale ? NULL : sizes, by_scale ? scales : NULL, 4, &y));
    for (int i = 0; i < 96; i++) want[i] = x_at((i / 48 * 3 + i / 8 % 6 / 2) * 4 + i % 8 / 2);
    run("nearest resize", y, sizes, 4, want, 96);
  }
  /* Linear over a plane that is linear: the inside is linear too. */
  x = input(IMAGE, 4);
  const int64_t wider[] = {1, 2, 3, 7};
  TRY(sinter_network_add_resize(net, NULL, SINTER_RESIZE_LINEAR_ALIGN_CORNERS, x, wider, NULL, 4, &y));
  for (int i = 0; i < 42; i++) want[i] = x_at(i / 7 * 4) + (float)(i % 7) * 0.125f;
  run("linear resize", y, wider, 4, want, 42);

  const int64_t before[] = {1, 0}, after[] = {0, 2}, padded[] = {5, 8};
  for (int kind = SINTER_PADDING_CONSTANT; kind <= SINTER_PADDING_EDGE; kind++) {
    x = input(TABLE, 2);
    TRY(sinter_network_add_padding(net, NULL, kind, x, before, after, 2, 7.5f, &y));
    for (int i = 0; i < 5; i++)
      for (int k = 0; k < 8; k++) {
        int r = i - 1, c = k, outside = r < 0 || c > 5;
        if (kind == SINTER_PADDING_REFLECT) r = r < 0 ? 1 : r, c = c > 5 ? 10 - c : c;
        if (kind == SINTER_PADDING_EDGE) r = r < 0 ? 0 : r, c = c > 5 ? 5 : c;
        want[8 * i + k] = kind == SINTER_PADDING_CONSTANT && outside ? 7.5f : x_at(6 * r + c);
      }
    run("padding", y, padded, 2, want, 40);
  }

  /* Any operator by name, with attributes and two outputs. */
  SinterAttributes *a = NULL;
  TRY(sinter_attributes_create(&a));
  TRY(sinter_attributes_set_ints(a, "perm", perm, 2));
  x = input(TABLE, 2);
  const int64_t turned[] = {6, 4};
  TRY(sinter_network_add_node(net, "t", "Transpose", &x, 1, a, &y, 1));
  for (int i = 0; i < 24; i++) want[i] = x_at((i % 4) * 6 + i / 4);
  run("node by name", y, turned, 2, want, 24);
  TRY(sinter_attributes_destroy(a));
}

int main(void) {
  TRY(sinter_device_open("cpu", &device));
  windows();
  products();
  functions();
  reductions();
  movers();
  TRY(sinter_device_destroy(device));
  printf("%d layers, %d wrong\n", n_checks, n_wrong);
  return n_wrong != 0;
}
