/* A network by hand, without any model file: two convolutions that find edges in a picture, and a multilayer perceptron that
 * computes XOR. It is built, run, saved, loaded again and run again: the same numbers must come.
 *
 *   build_network [--device=cpu|cuda|cuda:N] [--save=FILE]
 */
#include "example.h"

enum { SIZE = 16 };

typedef struct {
  float edges[SIZE / 2 * SIZE / 2];
  float xor_of[4];
} Answer;

static SinterTensorId constant(SinterNetwork *n, const char *name, const int64_t *dims, size_t n_dims, const float *data) {
  size_t count = 1;
  for (size_t i = 0; i < n_dims; i++) count *= (size_t)dims[i];
  SinterTensorId id;
  TRY(sinter_network_add_constant(n, name, SINTER_DATA_TYPE_FLOAT32, dims, n_dims, data, count * sizeof(float), &id));
  return id;
}

/* image [1,1,16,16] -> Sobel in x and y -> |x| + |y| -> maximum of 2x2 -> edges [1,1,8,8] */
static void add_edges(SinterNetwork *n) {
  const int64_t image_dims[] = {1, 1, SIZE, SIZE}, sobel_dims[] = {2, 1, 3, 3}, sum_dims[] = {1, 2, 1, 1}, pool[] = {2, 2};
  const float sobel[] = {-1, 0, 1, -2, 0, 2, -1, 0, 1, /**/ -1, -2, -1, 0, 0, 0, 1, 2, 1};
  const float ones[] = {1, 1};
  SinterTensorId image, t;
  TRY(sinter_network_add_input(n, "image", SINTER_DATA_TYPE_FLOAT32, image_dims, 4, NULL, &image));

  SinterWindow same;
  memset(&same, 0, sizeof same);
  same.struct_size = sizeof same;
  same.pad_begin[0] = same.pad_begin[1] = same.pad_end[0] = same.pad_end[1] = 1;
  SinterTensorId weights = constant(n, "sobel", sobel_dims, 4, sobel);
  TRY(sinter_network_add_convolution(n, "gradient", image, weights, SINTER_NO_TENSOR, &same, &t));
  TRY(sinter_network_add_unary(n, "magnitude", SINTER_UNARY_ABS, t, &t));
  weights = constant(n, "ones", sum_dims, 4, ones);
  TRY(sinter_network_add_convolution(n, "sum", t, weights, SINTER_NO_TENSOR, NULL, &t));

  SinterWindow halve;
  memset(&halve, 0, sizeof halve);
  halve.struct_size = sizeof halve;
  halve.stride[0] = halve.stride[1] = 2;
  TRY(sinter_network_add_pooling(n, "strongest", SINTER_POOLING_MAX, t, pool, 2, &halve, &t));
  TRY(sinter_network_mark_output(n, t, "edges"));
}

/* bits [4,2] -> hidden [4,2] = relu(a + b, a + b - 1) -> xor [4,1] = hidden0 - 2 hidden1 */
static void add_xor(SinterNetwork *n) {
  const int64_t bits_dims[] = {4, 2}, w1_dims[] = {2, 2}, b1_dims[] = {2}, w2_dims[] = {1, 2};
  const float w1[] = {1, 1, 1, 1}, b1[] = {0, -1}, w2[] = {1, -2};
  SinterTensorId bits, t;
  TRY(sinter_network_add_input(n, "bits", SINTER_DATA_TYPE_FLOAT32, bits_dims, 2, NULL, &bits));
  SinterTensorId weights = constant(n, "w1", w1_dims, 2, w1), bias = constant(n, "b1", b1_dims, 1, b1);
  TRY(sinter_network_add_fully_connected(n, "hidden", bits, weights, bias, &t));
  TRY(sinter_network_add_activation(n, "hidden_relu", SINTER_ACTIVATION_RELU, t, 0.0f, 0.0f, &t));
  weights = constant(n, "w2", w2_dims, 2, w2);
  TRY(sinter_network_add_fully_connected(n, "answer", t, weights, SINTER_NO_TENSOR, &t));
  TRY(sinter_network_mark_output(n, t, "xor"));
}

static const float BITS[8] = {0, 0, 0, 1, 1, 0, 1, 1};

static Answer run(SinterDevice *device, SinterEngine *engine, const float *picture) {
  Answer answer;
  struct {
    const char *name;
    const float *in;
    float *out;
    size_t bytes;
    SinterBuffer *buffer;
    void *address;
  } io[] = {
      {"image", picture, NULL, SIZE * SIZE * sizeof(float), NULL, NULL},
      {"bits", BITS, NULL, sizeof BITS, NULL, NULL},
      {"edges", NULL, answer.edges, sizeof answer.edges, NULL, NULL},
      {"xor", NULL, answer.xor_of, sizeof answer.xor_of, NULL, NULL},
  };
  SinterContext *context = NULL;
  TRY(sinter_context_create(engine, &context));
  for (int i = 0; i < 4; i++) {
    TRY(sinter_buffer_create(device, io[i].bytes, &io[i].buffer));
    TRY(sinter_buffer_get_address(io[i].buffer, &io[i].address, NULL));
    if (io[i].in != NULL)
      TRY(sinter_device_copy(device, io[i].address, io[i].in, io[i].bytes, SINTER_COPY_KIND_HOST_TO_DEVICE));
    TRY(sinter_context_bind(context, io[i].name, io[i].address));
  }
  TRY(sinter_context_execute(context));
  for (int i = 0; i < 4; i++)
    if (io[i].out != NULL)
      TRY(sinter_device_copy(device, io[i].out, io[i].address, io[i].bytes, SINTER_COPY_KIND_DEVICE_TO_HOST));
  TRY(sinter_context_destroy(context));
  for (int i = 0; i < 4; i++) TRY(sinter_buffer_destroy(io[i].buffer));
  return answer;
}

int main(int argc, char **argv) {
  const char *path = example_option(argc, argv, "--save");
  if (path == NULL) path = "build_network.sinter";
  SinterDevice *device = example_device(argc, argv);

  SinterNetwork *network = NULL;
  TRY(sinter_network_create("edges_and_xor", &network));
  add_edges(network);
  add_xor(network);
  size_t n_layers = 0;
  TRY(sinter_network_get_layer_count(network, &n_layers));
  printf("The network has %zu layers:\n", n_layers);
  for (size_t i = 0; i < n_layers; i++) {
    char name[64], type[64];
    TRY(sinter_network_get_layer_name(network, i, name, sizeof name, NULL));
    TRY(sinter_network_get_layer_type(network, i, type, sizeof type, NULL));
    printf("  %-12s %s\n", name, type);
  }

  SinterBuilder *builder = NULL;
  SinterEngine *built = NULL, *loaded = NULL;
  TRY(sinter_builder_create(device, &builder));
  TRY(sinter_builder_build_engine(builder, network, NULL, &built));
  TRY(sinter_engine_get_layer_count(built, &n_layers));
  printf("The engine has %zu, after fusion.\n", n_layers);

  /* A ring. */
  float picture[SIZE * SIZE];
  for (int y = 0; y < SIZE; y++)
    for (int x = 0; x < SIZE; x++) {
      float r = (float)((2 * x - SIZE + 1) * (2 * x - SIZE + 1) + (2 * y - SIZE + 1) * (2 * y - SIZE + 1));
      picture[y * SIZE + x] = r > 60.0f && r < 190.0f ? 1.0f : 0.0f;
    }
  Answer before = run(device, built, picture);

  TRY(sinter_engine_serialize_file(built, path));
  SinterRuntime *runtime = NULL;
  TRY(sinter_runtime_create(device, &runtime));
  TRY(sinter_runtime_deserialize_engine_file(runtime, path, SINTER_LOAD_POLICY_ERROR, &loaded));
  Answer after = run(device, loaded, picture);

  printf("\nA picture, and where its edges are:\n");
  for (int y = 0; y < SIZE / 2; y++) {
    printf("  ");
    for (int x = 0; x < SIZE; x++) putchar(picture[2 * y * SIZE + x] > 0.5f ? '#' : '.');
    printf("   ");
    for (int x = 0; x < SIZE / 2; x++) {
      float e = after.edges[y * SIZE / 2 + x];
      char c = e > 4.5f ? '@' : e > 2.5f ? 'o' : e > 0.5f ? ':' : '.';
      printf("%c%c", c, c);
    }
    printf("\n");
  }
  int wrong = 0;
  printf("\nThe perceptron says:\n");
  for (int i = 0; i < 4; i++) {
    int a = (int)BITS[2 * i], b = (int)BITS[2 * i + 1];
    printf("  %d xor %d = %g\n", a, b, (double)after.xor_of[i]);
    wrong += after.xor_of[i] != (float)(a ^ b);
  }
  int same = memcmp(&before, &after, sizeof before) == 0;
  printf("\nSaved to %s and loaded: the answers are %s.\n", path, same ? "the same to the last bit" : "DIFFERENT");

  TRY(sinter_engine_destroy(built));
  TRY(sinter_engine_destroy(loaded));
  TRY(sinter_runtime_destroy(runtime));
  TRY(sinter_builder_destroy(builder));
  TRY(sinter_network_destroy(network));
  TRY(sinter_device_destroy(device));
  return wrong || !same;
}
