/* What all examples share: leaving with the library's sentence, options, finding the model, a clock. */
#ifndef EXAMPLE_H
#define EXAMPLE_H

#include <sinter.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Every call that can fail goes through TRY: the library has a sentence for each failure. */
#define TRY(call) example_try((call), __FILE__, __LINE__)

static inline void example_try(SinterStatus status, const char *file, int line) {
  if (status != SINTER_STATUS_OK) {
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, sinter_status_name(status), sinter_last_error_message());
    exit(1);
  }
}

static inline void example_fail(const char *text) {
  fprintf(stderr, "%s\n", text);
  exit(1);
}

/* The value of "--name=value" or "--name value"; NULL when it is not given. */
static inline const char *example_option(int argc, char **argv, const char *name) {
  size_t n = strlen(name);
  for (int i = 1; i < argc; i++) {
    if (strncmp(argv[i], name, n) == 0 && argv[i][n] == '=') return argv[i] + n + 1;
    if (strcmp(argv[i], name) == 0 && i + 1 < argc) return argv[i + 1];
  }
  return NULL;
}

static inline int example_flag(int argc, char **argv, const char *name) {
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], name) == 0) return 1;
  return 0;
}

/* Opens the device of --device=cpu|cuda|cuda:N (CUDA device 0 if there is one, otherwise the CPU) and says which. */
static inline SinterDevice *example_device(int argc, char **argv) {
  TRY(sinter_version_check(SINTER_VERSION_PACKED));
  SinterDevice *device = NULL;
  TRY(sinter_device_open(example_option(argc, argv, "--device"), &device));
  SinterDeviceProperties p;
  memset(&p, 0, sizeof p);
  p.struct_size = sizeof p;
  TRY(sinter_device_get_properties(device, &p));
  printf("Sinter %s on %s\n", sinter_version_string(), p.name);
  return device;
}

/* Path of a file in the folder of --models, or of models/ as seen from here or from the repository. */
static inline const char *example_model(int argc, char **argv, const char *file, char *path, size_t capacity) {
  const char *folders[] = {example_option(argc, argv, "--models"), "models", "examples_c/models", "../models"};
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    if (folders[i] == NULL) continue;
    snprintf(path, capacity, "%s/%s", folders[i], file);
    FILE *f = fopen(path, "rb");
    if (f != NULL) {
      fclose(f);
      return path;
    }
  }
  fprintf(stderr, "cannot find %s; say where it is with --models=FOLDER\n", file);
  exit(1);
}

/* Ten pictures of 8 x 8 pixels from 0 (paper) to 16 (ink), and which digits they show. */
typedef struct {
  float pixels[10][64];
  int digit[10];
} Samples;

static inline void example_samples(const char *path, Samples *s) {
  FILE *f = fopen(path, "rb");
  if (f == NULL) example_fail("cannot open the samples");
  for (int i = 0; i < 10; i++) {
    unsigned char record[65];
    if (fread(record, 1, sizeof record, f) != sizeof record) example_fail("the samples are cut short");
    for (int k = 0; k < 64; k++) s->pixels[i][k] = (float)record[k];
    s->digit[i] = record[64];
  }
  fclose(f);
}

static inline double example_ms(void) {
  struct timespec t;
  timespec_get(&t, TIME_UTC);
  return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Builds the digits model for batches of 1 to 10 pictures. */
static inline SinterEngine *example_digits(SinterDevice *device, const char *path) {
  SinterNetwork *network = NULL;
  SinterProfile *profile = NULL;
  SinterBuilderConfig *config = NULL;
  SinterBuilder *builder = NULL;
  SinterEngine *engine = NULL;
  const int64_t one[] = {1, 1, 8, 8}, ten[] = {10, 1, 8, 8};
  TRY(sinter_network_create_from_onnx_file(path, &network));
  TRY(sinter_profile_create(&profile));
  TRY(sinter_profile_set_range(profile, "image", one, one, ten, 4));
  TRY(sinter_builder_config_create(&config));
  TRY(sinter_builder_config_add_profile(config, profile, NULL));
  TRY(sinter_builder_create(device, &builder));
  TRY(sinter_builder_build_engine(builder, network, config, &engine));
  /* What an engine was built from is not needed any more. */
  TRY(sinter_builder_destroy(builder));
  TRY(sinter_builder_config_destroy(config));
  TRY(sinter_profile_destroy(profile));
  TRY(sinter_network_destroy(network));
  return engine;
}

#endif
