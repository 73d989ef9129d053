/* Loads a model, shows it a handwritten digit and prints what it saw.
 *
 *   hello_digits [--device=cpu|cuda|cuda:N] [--digit=0..9] [--models=FOLDER]
 */
#include "example.h"

static void draw(const float *pixels) {
  const char ink[] = " .:-=+*#@";
  printf("    +----------------+\n");
  for (int y = 0; y < 8; y++) {
    printf("    |");
    for (int x = 0; x < 8; x++) {
      char c = ink[(int)pixels[y * 8 + x] / 2];
      printf("%c%c", c, c);
    }
    printf("|\n");
  }
  printf("    +----------------+\n\n");
}

static int largest(const float *p) {
  int best = 0;
  for (int i = 1; i < 10; i++)
    if (p[i] > p[best]) best = i;
  return best;
}

int main(int argc, char **argv) {
  char path[1024];
  Samples samples;
  example_samples(example_model(argc, argv, "digits_samples.bin", path, sizeof path), &samples);
  const char *wanted = example_option(argc, argv, "--digit");
  int digit = wanted != NULL ? atoi(wanted) : 7;
  if (digit < 0 || digit > 9) example_fail("--digit is one of 0 to 9");

  SinterDevice *device = example_device(argc, argv);
  double start = example_ms();
  SinterEngine *engine = example_digits(device, example_model(argc, argv, "digits.onnx", path, sizeof path));
  size_t n_layers = 0, weight_bytes = 0;
  TRY(sinter_engine_get_layer_count(engine, &n_layers));
  TRY(sinter_engine_get_weight_bytes(engine, &weight_bytes));
  printf("%s: %zu layers, %zu bytes of weights, built in %.0f ms\n\n", path, n_layers, weight_bytes, example_ms() - start);

  SinterContext *context = NULL;
  SinterBuffer *in = NULL, *out = NULL;
  void *image = NULL, *probabilities = NULL;
  TRY(sinter_context_create(engine, &context));
  TRY(sinter_buffer_create(device, sizeof samples.pixels, &in));
  TRY(sinter_buffer_create(device, 100 * sizeof(float), &out));
  TRY(sinter_buffer_get_address(in, &image, NULL));
  TRY(sinter_buffer_get_address(out, &probabilities, NULL));
  TRY(sinter_context_bind(context, "image", image));
  TRY(sinter_context_bind(context, "probabilities", probabilities));

  /* One picture. */
  float p[100];
  const int64_t one[] = {1, 1, 8, 8};
  TRY(sinter_context_set_input_shape(context, "image", one, 4));
  TRY(sinter_device_copy(device, image, samples.pixels[digit], sizeof samples.pixels[digit], SINTER_COPY_KIND_HOST_TO_DEVICE));
  TRY(sinter_context_execute(context));
  TRY(sinter_device_copy(device, p, probabilities, 10 * sizeof(float), SINTER_COPY_KIND_DEVICE_TO_HOST));
  draw(samples.pixels[digit]);
  for (int i = 0; i < 10; i++) {
    printf("  %d |", i);
    for (int k = 0; k < 40; k++) putchar(k < (int)(p[i] * 40.0f + 0.5f) ? '#' : ' ');
    printf("| %5.1f %%%s\n", (double)p[i] * 100.0, i == largest(p) ? "  <--" : "");
  }
  printf("\nThis is a %d. (It was written as a %d.)\n", largest(p), samples.digit[digit]);
  int wrong = largest(p) != samples.digit[digit];

  /* All ten in one batch: another shape of the same engine. */
  const int64_t ten[] = {10, 1, 8, 8};
  TRY(sinter_context_set_input_shape(context, "image", ten, 4));
  TRY(sinter_device_copy(device, image, samples.pixels, sizeof samples.pixels, SINTER_COPY_KIND_HOST_TO_DEVICE));
  TRY(sinter_context_execute(context));
  TRY(sinter_device_copy(device, p, probabilities, sizeof p, SINTER_COPY_KIND_DEVICE_TO_HOST));
  printf("All ten at once:");
  for (int i = 0; i < 10; i++) {
    printf(" %d", largest(p + 10 * i));
    wrong += largest(p + 10 * i) != samples.digit[i];
  }
  printf("%s\n", wrong ? "  (not all of them right)" : "  (all right)");

  TRY(sinter_context_destroy(context));
  TRY(sinter_buffer_destroy(in));
  TRY(sinter_buffer_destroy(out));
  TRY(sinter_engine_destroy(engine));
  TRY(sinter_device_destroy(device));
  return wrong ? 1 : 0;
}
