/* Two contexts of one engine, each on a stream of its own. The input of an execution is overwritten as soon as its
 * input-consumed event says so, while the rest of the network still runs; every answer is checked.
 *
 *   async_streams [--device=cpu|cuda|cuda:N] [--rounds=N] [--models=FOLDER]
 */
#include "example.h"

enum { N_STREAMS = 2, SLOT = 256 /* bytes of one answer, to keep each aligned */ };

typedef struct {
  SinterContext *context;
  void *stream;
  void *consumed;
  SinterBuffer *in, *out;
  char *image, *answers;
} Lane;

int main(int argc, char **argv) {
  char path[1024];
  Samples samples;
  example_samples(example_model(argc, argv, "digits_samples.bin", path, sizeof path), &samples);
  const char *rounds_text = example_option(argc, argv, "--rounds");
  int rounds = rounds_text != NULL ? atoi(rounds_text) : 50;
  if (rounds < 1 || rounds > 100000) example_fail("--rounds is one of 1 to 100000");

  SinterDevice *device = example_device(argc, argv);
  SinterEngine *engine = example_digits(device, example_model(argc, argv, "digits.onnx", path, sizeof path));
  const size_t image_bytes = sizeof samples.pixels[0], answer_bytes = 10 * sizeof(float);
  const int64_t one[] = {1, 1, 8, 8};

  Lane lanes[N_STREAMS];
  for (int k = 0; k < N_STREAMS; k++) {
    Lane *l = &lanes[k];
    void *address = NULL;
    TRY(sinter_context_create(engine, &l->context));
    TRY(sinter_stream_create(device, &l->stream));
    TRY(sinter_event_create(device, 0, &l->consumed));
    TRY(sinter_buffer_create(device, image_bytes, &l->in));
    TRY(sinter_buffer_create(device, (size_t)rounds * SLOT, &l->out));
    TRY(sinter_buffer_get_address(l->in, &address, NULL));
    l->image = address;
    TRY(sinter_buffer_get_address(l->out, &address, NULL));
    l->answers = address;
    TRY(sinter_context_set_input_shape(l->context, "image", one, 4));
    TRY(sinter_context_bind(l->context, "image", l->image));
  }
  /* The contexts keep the engine alive. */
  TRY(sinter_engine_destroy(engine));

  /* What is right: each picture alone, one after the other. */
  float right[10][10];
  for (int d = 0; d < 10; d++) {
    Lane *l = &lanes[0];
    TRY(sinter_context_bind(l->context, "probabilities", l->answers));
    TRY(sinter_device_copy(device, l->image, samples.pixels[d], image_bytes, SINTER_COPY_KIND_HOST_TO_DEVICE));
    TRY(sinter_context_execute(l->context));
    TRY(sinter_device_copy(device, right[d], l->answers, answer_bytes, SINTER_COPY_KIND_DEVICE_TO_HOST));
  }

  /* Both streams at once. Stream k sees picture (7 k + 3 r) mod 10 in round r. */
  void *first = NULL, *last = NULL;
  TRY(sinter_event_create(device, 1, &first));
  TRY(sinter_event_create(device, 1, &last));
  TRY(sinter_event_record(device, first, lanes[0].stream));
  double start = example_ms(), waited = 0.0;
  for (int r = 0; r < rounds; r++) {
    for (int k = 0; k < N_STREAMS; k++) {
      Lane *l = &lanes[k];
      double before = example_ms();
      TRY(sinter_event_synchronize(device, l->consumed)); /* of the round before; at once in the first */
      waited += example_ms() - before;
      const float *picture = samples.pixels[(7 * k + 3 * r) % 10];
      TRY(sinter_device_copy(device, l->image, picture, image_bytes, SINTER_COPY_KIND_HOST_TO_DEVICE));
      TRY(sinter_context_bind(l->context, "probabilities", l->answers + (size_t)r * SLOT));
      TRY(sinter_context_enqueue(l->context, l->stream, l->consumed));
    }
  }
  /* The last inputs are overwritten too, the moment they are read. */
  const float nothing[64] = {0};
  for (int k = 0; k < N_STREAMS; k++) {
    TRY(sinter_event_synchronize(device, lanes[k].consumed));
    TRY(sinter_device_copy(device, lanes[k].image, nothing, image_bytes, SINTER_COPY_KIND_HOST_TO_DEVICE));
  }
  TRY(sinter_event_record(device, last, lanes[0].stream));
  for (int k = 0; k < N_STREAMS; k++) TRY(sinter_stream_synchronize(device, lanes[k].stream));
  double took = example_ms() - start;
  float stream_ms = 0.0f;
  TRY(sinter_event_query_elapsed(device, first, last, &stream_ms));

  int wrong = 0;
  for (int k = 0; k < N_STREAMS; k++) {
    for (int r = 0; r < rounds; r++) {
      float got[10];
      TRY(sinter_device_copy(device, got, lanes[k].answers + (size_t)r * SLOT, answer_bytes, SINTER_COPY_KIND_DEVICE_TO_HOST));
      wrong += memcmp(got, right[(7 * k + 3 * r) % 10], answer_bytes) != 0;
    }
  }
  printf("%d executions on %d streams in %.1f ms (%.0f a second); the host waited %.1f ms for inputs to be read\n",
         rounds * N_STREAMS, N_STREAMS, took, rounds * N_STREAMS / took * 1e3, waited);
  printf("stream 0 was busy for %.1f ms from its first event to its last\n", (double)stream_ms);
  printf("%d answers differ from those of one picture at a time\n", wrong);

  TRY(sinter_event_destroy(device, first));
  TRY(sinter_event_destroy(device, last));
  for (int k = 0; k < N_STREAMS; k++) {
    TRY(sinter_context_destroy(lanes[k].context));
    TRY(sinter_event_destroy(device, lanes[k].consumed));
    TRY(sinter_stream_destroy(device, lanes[k].stream));
    TRY(sinter_buffer_destroy(lanes[k].in));
    TRY(sinter_buffer_destroy(lanes[k].out));
  }
  TRY(sinter_device_destroy(device));
  return wrong != 0;
}
