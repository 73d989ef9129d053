/* Where the time goes: the mean time of each layer of a model.
 *
 *   profile [--device=cpu|cuda|cuda:N] [--runs=N] [--models=FOLDER] [--json]
 */
#include "example.h"

enum { MOST_LAYERS = 256 };

typedef struct {
  struct {
    char name[64];
    double ms;
  } layers[MOST_LAYERS];
  int n, next;
} Table;

/* Called for each layer of an execution, in order. */
static void on_layer(void *userdata, const char *layer, float milliseconds) {
  Table *t = userdata;
  if (t->next >= MOST_LAYERS) return;
  int i = t->next++;
  if (i >= t->n) {
    t->n = i + 1;
    snprintf(t->layers[i].name, sizeof t->layers[i].name, "%s", layer);
  }
  t->layers[i].ms += (double)milliseconds;
}

int main(int argc, char **argv) {
  char path[1024];
  Samples samples;
  example_samples(example_model(argc, argv, "digits_samples.bin", path, sizeof path), &samples);
  const char *runs_text = example_option(argc, argv, "--runs");
  int runs = runs_text != NULL ? atoi(runs_text) : 20;
  if (runs < 1) example_fail("--runs is at least 1");

  SinterDevice *device = example_device(argc, argv);
  SinterEngine *engine = example_digits(device, example_model(argc, argv, "digits.onnx", path, sizeof path));
  if (example_flag(argc, argv, "--json")) {
    SinterHostMemory *text = NULL;
    const void *data = NULL;
    TRY(sinter_engine_query_json(engine, &text));
    TRY(sinter_host_memory_get_data(text, &data, NULL));
    fputs(data, stdout);
    TRY(sinter_host_memory_destroy(text));
  }

  const int64_t ten[] = {10, 1, 8, 8};
  SinterContext *context = NULL;
  SinterBuffer *in = NULL, *out = NULL;
  void *image = NULL, *probabilities = NULL;
  size_t out_bytes = 0, scratch_bytes = 0;
  TRY(sinter_context_create(engine, &context));
  TRY(sinter_context_set_input_shape(context, "image", ten, 4));
  TRY(sinter_context_query_tensor_bytes(context, "probabilities", &out_bytes));
  TRY(sinter_buffer_create(device, sizeof samples.pixels, &in));
  TRY(sinter_buffer_create(device, out_bytes, &out));
  TRY(sinter_buffer_get_address(in, &image, NULL));
  TRY(sinter_buffer_get_address(out, &probabilities, NULL));
  TRY(sinter_device_copy(device, image, samples.pixels, sizeof samples.pixels, SINTER_COPY_KIND_HOST_TO_DEVICE));
  TRY(sinter_context_bind(context, "image", image));
  TRY(sinter_context_bind(context, "probabilities", probabilities));
  TRY(sinter_context_get_scratch_bytes(context, &scratch_bytes));

  /* Once without the clock: caches fill, kernels load. Then once as a whole, then layer by layer. */
  TRY(sinter_context_execute(context));
  double start = example_ms();
  for (int i = 0; i < runs; i++) TRY(sinter_context_execute(context));
  double whole = (example_ms() - start) / runs;

  Table table;
  memset(&table, 0, sizeof table);
  TRY(sinter_context_set_layer_time_callback(context, on_layer, &table));
  for (int i = 0; i < runs; i++) {
    table.next = 0;
    TRY(sinter_context_execute(context));
  }
  TRY(sinter_context_set_layer_time_callback(context, NULL, NULL));

  double sum = 0.0;
  for (int i = 0; i < table.n; i++) sum += table.layers[i].ms / runs;
  printf("%s, batch of 10, mean of %d runs, %zu bytes of scratch\n\n", path, runs, scratch_bytes);
  printf("  %-32s %10s %7s\n", "layer", "us", "%");
  for (int i = 0; i < table.n; i++) {
    double ms = table.layers[i].ms / runs, share = sum > 0.0 ? ms / sum : 0.0;
    printf("  %-32s %10.1f %6.1f  ", table.layers[i].name, ms * 1e3, share * 100.0);
    for (int k = 0; k < (int)(share * 40.0 + 0.5); k++) putchar('#');
    putchar('\n');
  }
  printf("  %-32s %10.1f\n", "sum", sum * 1e3);
  printf("  %-32s %10.1f\n", "a run without the layer clock", whole * 1e3);

  TRY(sinter_context_destroy(context));
  TRY(sinter_buffer_destroy(in));
  TRY(sinter_buffer_destroy(out));
  TRY(sinter_engine_destroy(engine));
  TRY(sinter_device_destroy(device));
  return table.n > 0 ? 0 : 1;
}
