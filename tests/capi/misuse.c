/* What the library says to an application that does wrong: a status and a sentence, never a crash.
 *
 * misuse MODEL runs all but the panic; misuse MODEL panic FUNCTION runs with SINTER_TEST_PANIC=FUNCTION.
 */
#include <sinter.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int n_checks, n_wrong;

/* The call gives this status, and its sentence holds this text. */
#define EXPECT(status, text, call) expect((call), (status), (text), #call, __LINE__)
#define OK(call) expect((call), SINTER_STATUS_OK, NULL, #call, __LINE__)
#define CHECK(condition) check((condition), #condition, __LINE__)

static void check(int fine, const char *what, int line) {
  n_checks++;
  if (!fine) {
    n_wrong++;
    printf("line %d: %s does not hold (last error: %s)\n", line, what, sinter_last_error_message());
  }
}

static void expect(SinterStatus got, SinterStatus wanted, const char *text, const char *call, int line) {
  n_checks++;
  const char *message = sinter_last_error_message();
  int fine = got == wanted && (text == NULL || (strstr(message, text) != NULL && sinter_last_error_status() == wanted));
  if (!fine) {
    n_wrong++;
    printf("line %d: %s\n  gave %s, expected %s with \"%s\"\n  the sentence is: %s\n", line, call, sinter_status_name(got),
           sinter_status_name(wanted), text == NULL ? "" : text, message);
  }
}

static SinterDevice *device;
static SinterNetwork *network;
static SinterBuilder *builder;
static SinterBuilderConfig *config;
static SinterEngine *engine;

static void prepare(const char *model) {
  const int64_t one[] = {1, 1, 8, 8}, ten[] = {10, 1, 8, 8};
  SinterProfile *profile = NULL;
  OK(sinter_device_open("cpu", &device));
  OK(sinter_network_create_from_onnx_file(model, &network));
  OK(sinter_profile_create(&profile));
  OK(sinter_profile_set_range(profile, "image", one, one, ten, 4));
  OK(sinter_builder_config_create(&config));
  OK(sinter_builder_config_add_profile(config, profile, NULL));
  OK(sinter_builder_create(device, &builder));
  OK(sinter_builder_build_engine(builder, network, config, &engine));
  OK(sinter_profile_destroy(profile));
}

static void finish(void) {
  OK(sinter_engine_destroy(engine));
  OK(sinter_builder_destroy(builder));
  OK(sinter_builder_config_destroy(config));
  OK(sinter_network_destroy(network));
  OK(sinter_device_destroy(device));
}

static void handles(void) {
  SinterProfile *p = NULL;
  OK(sinter_profile_create(&p));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "expected a profile, got a device", sinter_profile_destroy((SinterProfile *)(void *)device));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "expected an engine, got a network",
         sinter_context_create((SinterEngine *)(void *)network, &(SinterContext *){NULL}));
  OK(sinter_profile_destroy(p));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "a profile that was destroyed", sinter_profile_destroy(p));
  const int64_t d[] = {1};
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "a profile that was destroyed", sinter_profile_set_range(p, "x", d, d, d, 1));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "expected an engine, got a profile that was destroyed",
         sinter_engine_destroy((SinterEngine *)(void *)p));
  OK(sinter_profile_destroy(NULL));
  /* Memory of the application's own. */
  uint64_t mine[8] = {0};
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "not a handle of this library", sinter_engine_destroy((SinterEngine *)(void *)mine));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "no handle of this library",
         sinter_engine_destroy((SinterEngine *)(void *)((char *)mine + 1)));
  /* A handle output is NULL after a failure. */
  SinterEngine *e = (SinterEngine *)(void *)mine;
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "runtime is NULL",
         sinter_runtime_deserialize_engine(NULL, mine, sizeof mine, SINTER_LOAD_POLICY_ERROR, &e));
  CHECK(e == NULL);
  /* Streams and events are told from each other too. */
  void *stream = NULL, *event = NULL;
  OK(sinter_stream_create(device, &stream));
  OK(sinter_event_create(device, 0, &event));
  CHECK(sinter_stream_synchronize(device, event) == SINTER_STATUS_INVALID_ARGUMENT);
  CHECK(sinter_event_synchronize(device, stream) == SINTER_STATUS_INVALID_ARGUMENT);
  OK(sinter_event_destroy(device, event));
  CHECK(sinter_event_destroy(device, event) == SINTER_STATUS_INVALID_ARGUMENT);
  OK(sinter_stream_destroy(device, stream));
  CHECK(sinter_stream_destroy(device, stream) == SINTER_STATUS_INVALID_ARGUMENT);
}

static void arguments(void) {
  SinterDevice *d = device;
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "\"tpu\"", sinter_device_open("tpu", &d));
  CHECK(d == NULL);
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "not UTF-8", sinter_device_open("\xff\xfe", &d));
  CHECK(sinter_device_open("cuda:4000", &d) != SINTER_STATUS_OK && strlen(sinter_last_error_message()) > 20);
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "severity 77", sinter_logger_set_severity(77));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "copy kind 3", sinter_device_copy(device, &n_checks, &n_checks, 1, 3));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "builder flag 3", sinter_builder_config_set_flag(config, 3, 1));
  EXPECT(SINTER_STATUS_NOT_FOUND, "cudnn5", sinter_builder_config_exclude_tactic_source(config, "cudnn5"));
  SinterTensorId t = 5;
  const int64_t dims[] = {2, 3};
  SinterNetwork *n = NULL;
  OK(sinter_network_create(NULL, &n));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "data type 99", sinter_network_add_input(n, "x", 99, dims, 2, NULL, &t));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "there is no tensor with id 42",
         sinter_network_add_unary(n, NULL, SINTER_UNARY_ABS, 42, &t));
  CHECK(t == 5); /* outputs stay on failure */
  OK(sinter_network_add_input(n, "x", SINTER_DATA_TYPE_FLOAT32, dims, 2, NULL, &t));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "already an input named \"x\"",
         sinter_network_add_input(n, "x", SINTER_DATA_TYPE_FLOAT32, dims, 2, NULL, &t));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "activation 1000", sinter_network_add_activation(n, NULL, 1000, t, 0, 0, &t));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "24 bytes",
         sinter_network_add_constant(n, NULL, SINTER_DATA_TYPE_FLOAT32, dims, 2, dims, sizeof dims, &t));
  const int64_t huge[] = {INT64_MAX, INT64_MAX};
  EXPECT(SINTER_STATUS_OUT_OF_MEMORY, "too large",
         sinter_network_add_constant(n, NULL, SINTER_DATA_TYPE_FLOAT32, huge, 2, dims, sizeof dims, &t));
  SinterBuilder *b = NULL;
  SinterEngine *e = NULL;
  OK(sinter_builder_create(device, &b));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "no outputs", sinter_builder_build_engine(b, n, NULL, &e));
  EXPECT(SINTER_STATUS_UNSUPPORTED, "NoSuchOperator", sinter_network_add_node(n, NULL, "NoSuchOperator", &t, 1, NULL, &t, 1));
  SinterAttributes *a = NULL;
  OK(sinter_attributes_create(&a));
  OK(sinter_attributes_set_int(a, "axsi", 0));
  SinterTensorId y;
  EXPECT(SINTER_STATUS_UNSUPPORTED, "axsi", sinter_network_add_node(n, NULL, "Softmax", &t, 1, a, &y, 1));
  OK(sinter_attributes_destroy(a));
  SinterWindow w;
  memset(&w, 0, sizeof w);
  const int64_t size[] = {2, 2};
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "struct_size is 0", sinter_network_add_pooling(n, NULL, 0, 0, size, 0, &w, &y));
  /* Text and lists: a count without a buffer, a buffer that is too small. */
  size_t length = 0;
  char small[2];
  OK(sinter_network_get_tensor_name(n, 0, NULL, 0, &length));
  CHECK(length == 1);
  OK(sinter_network_get_tensor_name(n, 0, small, sizeof small, NULL));
  CHECK(strcmp(small, "x") == 0);
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "room for 1, 2 are needed", sinter_network_get_tensor_name(n, 0, small, 1, NULL));
  int64_t one_dim;
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "room for 1, 2 are needed", sinter_network_get_tensor_shape(n, 0, &one_dim, 1, NULL));
  OK(sinter_builder_destroy(b));
  OK(sinter_network_destroy(n));
  /* A header of another version. */
  EXPECT(SINTER_STATUS_VERSION_MISMATCH, "compiled for version 77.0.0", sinter_version_check(77000000));
  OK(sinter_version_check(SINTER_VERSION_PACKED));
  CHECK(sinter_version() == SINTER_VERSION_PACKED && sinter_version_packed == SINTER_VERSION_PACKED);
  CHECK(sinter_version_major == SINTER_VERSION_MAJOR && sinter_version_minor == SINTER_VERSION_MINOR);
  CHECK(strcmp(sinter_status_name(12345), "unknown") == 0);
}

static void contexts(void) {
  SinterContext *c = NULL;
  SinterBuffer *in = NULL, *out = NULL;
  void *image = NULL, *probabilities = NULL;
  const int64_t ten[] = {10, 1, 8, 8}, eleven[] = {11, 1, 8, 8}, square[] = {1, 1, 9, 8}, flat[] = {64};
  int64_t dims[4];
  OK(sinter_context_create(engine, &c));
  EXPECT(SINTER_STATUS_INVALID_STATE, "shape of input \"image\" is not set", sinter_context_execute(c));
  EXPECT(SINTER_STATUS_INVALID_STATE, "not set", sinter_context_query_tensor_shape(c, "probabilities", dims, 4, NULL));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "0 is 11, outside of the profile's range 1 to 10",
         sinter_context_set_input_shape(c, "image", eleven, 4));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "2 must be 8, got 9", sinter_context_set_input_shape(c, "image", square, 4));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "rank 4", sinter_context_set_input_shape(c, "image", flat, 1));
  EXPECT(SINTER_STATUS_NOT_FOUND, "no input or output named \"imago\"", sinter_context_set_input_shape(c, "imago", ten, 4));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "is an output", sinter_context_set_input_shape(c, "probabilities", ten, 4));
  EXPECT(SINTER_STATUS_NOT_FOUND, "it has \"image\", \"probabilities\"", sinter_context_bind(c, "x", dims));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "no profile 3; the engine has 1", sinter_context_set_profile(c, 3));
  OK(sinter_context_set_input_shape(c, "image", ten, 4));
  EXPECT(SINTER_STATUS_INVALID_STATE, "\"image\" has no memory bound", sinter_context_execute(c));
  OK(sinter_buffer_create(device, 640 * sizeof(float), &in));
  OK(sinter_buffer_create(device, 100 * sizeof(float), &out));
  OK(sinter_buffer_get_address(in, &image, NULL));
  OK(sinter_buffer_get_address(out, &probabilities, NULL));
  memset(image, 0, 640 * sizeof(float));
  OK(sinter_context_bind(c, "image", image));
  EXPECT(SINTER_STATUS_INVALID_STATE, "\"probabilities\" has no memory bound", sinter_context_enqueue(c, NULL, NULL));
  OK(sinter_context_bind(c, "probabilities", NULL));
  EXPECT(SINTER_STATUS_INVALID_STATE, "bound to NULL", sinter_context_execute(c));
  OK(sinter_context_bind(c, "probabilities", (char *)probabilities + 1));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "not a multiple of 4", sinter_context_execute(c));
  OK(sinter_context_bind(c, "probabilities", probabilities));
  OK(sinter_context_execute(c));
  size_t n_dims = 0;
  OK(sinter_context_query_tensor_shape(c, "probabilities", dims, 4, &n_dims));
  CHECK(n_dims == 2 && dims[0] == 10 && dims[1] == 10);

  /* Children keep their parents alive: everything but the context goes, and it still runs. */
  SinterHostMemory *bytes = NULL;
  SinterRuntime *runtime = NULL;
  SinterEngine *loaded = NULL;
  SinterContext *orphan = NULL;
  SinterDevice *other = NULL;
  const void *data = NULL;
  size_t size = 0;
  OK(sinter_device_open("cpu", &other));
  OK(sinter_engine_serialize(engine, &bytes));
  OK(sinter_host_memory_get_data(bytes, &data, &size));
  OK(sinter_runtime_create(other, &runtime));
  OK(sinter_runtime_deserialize_engine(runtime, data, size, SINTER_LOAD_POLICY_REPLAN, &loaded));
  OK(sinter_context_create(loaded, &orphan));
  SinterEngine *bad = NULL;
  CHECK(sinter_runtime_deserialize_engine(runtime, data, size / 2, SINTER_LOAD_POLICY_REPLAN, &bad) != SINTER_STATUS_OK);
  CHECK(bad == NULL && strlen(sinter_last_error_message()) > 20);
  CHECK(sinter_runtime_deserialize_engine(runtime, "no engine at all", 16, SINTER_LOAD_POLICY_REPLAN, &bad) != SINTER_STATUS_OK);
  CHECK(sinter_runtime_deserialize_engine(runtime, data, 0, SINTER_LOAD_POLICY_REPLAN, &bad) != SINTER_STATUS_OK);
  EXPECT(SINTER_STATUS_NOT_FOUND, "/no/such/file",
         sinter_runtime_deserialize_engine_file(runtime, "/no/such/file", SINTER_LOAD_POLICY_REPLAN, &bad));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "load policy 2", sinter_runtime_deserialize_engine(runtime, data, size, 2, &bad));
  OK(sinter_engine_destroy(loaded));
  OK(sinter_runtime_destroy(runtime));
  OK(sinter_host_memory_destroy(bytes));
  OK(sinter_device_destroy(other));
  OK(sinter_context_set_input_shape(orphan, "image", ten, 4));
  OK(sinter_context_bind(orphan, "image", image));
  OK(sinter_context_bind(orphan, "probabilities", probabilities));
  OK(sinter_context_execute(orphan));
  OK(sinter_context_destroy(orphan));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "destroyed", sinter_context_execute(orphan));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "destroyed", sinter_context_create(loaded, &orphan));

  OK(sinter_context_destroy(c));
  OK(sinter_buffer_destroy(in));
  OK(sinter_buffer_destroy(out));
}

typedef struct {
  int n_calls, n_left;
  SinterStatus inside;
} Progress;

static int32_t on_progress(void *userdata, const char *stage, float done) {
  Progress *p = userdata;
  p->n_calls++;
  if (stage == NULL || done < 0.0f || done > 1.0f) p->inside = -1;
  if (p->n_calls == 1) {
    /* The builder is busy with the call that runs this callback: using or destroying it is refused. */
    SinterHostMemory *m = NULL;
    p->inside = sinter_builder_build(builder, network, NULL, &m);
    if (sinter_builder_destroy(builder) != SINTER_STATUS_INVALID_STATE) p->inside = -2;
  }
  return p->n_left-- > 0;
}

static void progress(void) {
  SinterHostMemory *bytes = NULL;
  Progress p = {0, 1000, 0};
  OK(sinter_builder_config_set_progress(config, on_progress, &p));
  OK(sinter_builder_build(builder, network, config, &bytes));
  CHECK(p.n_calls >= 3 && p.inside == SINTER_STATUS_INVALID_STATE);
  OK(sinter_host_memory_destroy(bytes));
  Progress stop = {0, 1, 0};
  OK(sinter_builder_config_set_progress(config, on_progress, &stop));
  bytes = (SinterHostMemory *)(void *)&stop;
  EXPECT(SINTER_STATUS_CANCELLED, "cancelled", sinter_builder_build(builder, network, config, &bytes));
  CHECK(bytes == NULL && stop.n_calls == 2);
  OK(sinter_builder_config_set_progress(config, NULL, NULL));
}

static void tuning(void) {
  int32_t level = -1, minimum = 0, average = 0, on = -1;
  size_t n = 9, changed = 9;
  uint64_t bytes = 0, tactic = 0;
  float ms = 0.0f;
  SinterBuilderConfig *c = NULL;
  OK(sinter_builder_config_create(&c));
  OK(sinter_builder_config_get_optimization_level(c, &level));
  CHECK(level == 3);
  OK(sinter_builder_config_set_optimization_level(c, 77));
  OK(sinter_builder_config_get_optimization_level(c, &level));
  CHECK(level == 5);
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "level -1", sinter_builder_config_set_optimization_level(c, -1));
  OK(sinter_builder_config_set_timing_iterations(c, 2, 7));
  OK(sinter_builder_config_get_timing_iterations(c, &minimum, &average));
  CHECK(minimum == 2 && average == 7);
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "at least 1", sinter_builder_config_set_timing_iterations(c, 1, 0));
  OK(sinter_builder_config_set_max_threads(c, 3));
  OK(sinter_builder_config_get_max_threads(c, &n));
  CHECK(n == 3);
  OK(sinter_builder_config_get_memory_pool_limit(c, SINTER_MEMORY_POOL_WORKSPACE, &bytes));
  CHECK(bytes == UINT64_MAX);
  OK(sinter_builder_config_set_memory_pool_limit(c, SINTER_MEMORY_POOL_WORKSPACE, 1 << 20));
  OK(sinter_builder_config_get_memory_pool_limit(c, SINTER_MEMORY_POOL_WORKSPACE, &bytes));
  CHECK(bytes == 1 << 20);
  OK(sinter_builder_config_exclude_tactic_source(c, "cublaslt"));
  OK(sinter_builder_config_get_tactic_source(c, SINTER_TACTIC_SOURCE_CUBLASLT, &on));
  CHECK(on == 0);
  OK(sinter_builder_config_set_tactic_source(c, SINTER_TACTIC_SOURCE_CUBLASLT, 1));
  OK(sinter_builder_config_set_tactic_source(c, SINTER_TACTIC_SOURCE_REFERENCE, 0));
  OK(sinter_builder_config_get_tactic_source(c, SINTER_TACTIC_SOURCE_CUBLASLT, &on));
  CHECK(on == 1);
  OK(sinter_builder_config_get_tactic_source(c, SINTER_TACTIC_SOURCE_REFERENCE, &on));
  CHECK(on == 0);
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "tactic source 4", sinter_builder_config_set_tactic_source(c, 4, 1));
  OK(sinter_builder_config_set_flag(c, SINTER_BUILDER_FLAG_NO_TIMING_CACHE, 1));
  OK(sinter_builder_config_get_flag(c, SINTER_BUILDER_FLAG_NO_TIMING_CACHE, &on));
  CHECK(on == 1);

  SinterTimingCache *a = NULL, *b = NULL;
  SinterTimingKey key = {{1}}, other = {{2}}, found = {{0}};
  SinterHostMemory *m = NULL;
  const void *data = NULL;
  OK(sinter_timing_cache_create(NULL, 0, &a));
  EXPECT(SINTER_STATUS_NOT_FOUND, "01000000", sinter_timing_cache_query(a, &key, &tactic, &ms));
  OK(sinter_timing_cache_update(a, &key, 42, 0.5f));
  OK(sinter_timing_cache_query(a, &key, &tactic, &ms));
  CHECK(tactic == 42 && ms == 0.5f);
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "-1", sinter_timing_cache_update(a, &key, 42, -1.0f));
  OK(sinter_timing_cache_serialize(a, &m));
  OK(sinter_host_memory_get_data(m, &data, &n));
  OK(sinter_timing_cache_create(data, n, &b));
  OK(sinter_timing_cache_destroy(b));
  b = NULL;
  EXPECT(SINTER_STATUS_CORRUPT_DATA, "checksum", sinter_timing_cache_create(data, n - 1, &b));
  EXPECT(SINTER_STATUS_PARSE, "no timing cache", sinter_timing_cache_create("0123456789012345678901234", 24, &b));
  CHECK(b == NULL);
  OK(sinter_timing_cache_create(data, n, &b));
  OK(sinter_host_memory_destroy(m));
  OK(sinter_timing_cache_update(b, &key, 43, 0.25f));
  OK(sinter_timing_cache_update(b, &other, 44, 1.0f));
  OK(sinter_timing_cache_combine(a, b, SINTER_TIMING_CONFLICT_KEEP, 0, &changed));
  CHECK(changed == 1);
  OK(sinter_timing_cache_query(a, &key, &tactic, &ms));
  CHECK(tactic == 42);
  OK(sinter_timing_cache_combine(a, b, SINTER_TIMING_CONFLICT_FASTER, 0, NULL));
  OK(sinter_timing_cache_query(a, &key, &tactic, &ms));
  CHECK(tactic == 43);
  OK(sinter_timing_cache_get_keys(a, NULL, 0, &n));
  CHECK(n == 2);
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "room for 1", sinter_timing_cache_get_keys(a, &found, 1, &n));
  OK(sinter_timing_cache_update(a, &key, 0, NAN));
  EXPECT(SINTER_STATUS_NOT_FOUND, "01000000", sinter_timing_cache_query(a, &key, &tactic, &ms));
  OK(sinter_timing_cache_get_keys(a, &found, 1, NULL));
  CHECK(memcmp(&found, &other, sizeof found) == 0);
  OK(sinter_timing_cache_reset(a));
  OK(sinter_timing_cache_get_keys(a, NULL, 0, &n));
  CHECK(n == 0);
  OK(sinter_builder_config_set_timing_cache(c, b, 0));
  OK(sinter_timing_cache_destroy(b));
  OK(sinter_builder_config_set_flag(c, SINTER_BUILDER_FLAG_NO_TIMING_CACHE, 0));
  OK(sinter_builder_build(builder, network, c, &m)); /* the CPU times nothing, and needs no cache */
  OK(sinter_host_memory_destroy(m));
  OK(sinter_builder_config_set_timing_cache(c, NULL, 0));
  OK(sinter_timing_cache_destroy(a));
  OK(sinter_builder_config_destroy(c));
}

typedef struct {
  int n;
  SinterSeverity severity;
  char last[1024];
} Log;

static void on_log(void *userdata, SinterSeverity severity, const char *message) {
  Log *l = userdata;
  l->n++;
  l->severity = severity;
  snprintf(l->last, sizeof l->last, "%s", message);
  /* A callback may use the library. */
  SinterProfile *p = NULL;
  if (sinter_profile_create(&p) == SINTER_STATUS_OK) sinter_profile_destroy(p);
}

static void *other_thread(void *out) {
  *(int *)out = sinter_last_error_status() == SINTER_STATUS_OK && sinter_last_error_message()[0] == '\0';
  return NULL;
}

static void log_and_errors(void) {
  Log l = {0, -1, ""};
  OK(sinter_logger_set_severity(SINTER_SEVERITY_WARNING));
  OK(sinter_logger_set_callback(on_log, &l));
  EXPECT(SINTER_STATUS_INVALID_ARGUMENT, "sinter_device_open: ", sinter_device_open("abacus", &(SinterDevice *){NULL}));
  CHECK(l.n == 1 && l.severity == SINTER_SEVERITY_ERROR && strstr(l.last, "abacus") != NULL);
  OK(sinter_logger_log(SINTER_SEVERITY_WARNING, "from the application"));
  CHECK(l.n == 2 && strcmp(l.last, "from the application") == 0);
  OK(sinter_logger_log(SINTER_SEVERITY_VERBOSE, "below the threshold"));
  CHECK(l.n == 2);
  OK(sinter_logger_set_severity(SINTER_SEVERITY_INFO));
  CHECK(sinter_logger_get_severity() == SINTER_SEVERITY_INFO);
  SinterHostMemory *bytes = NULL;
  OK(sinter_builder_build(builder, network, config, &bytes));
  CHECK(l.n > 3);
  OK(sinter_host_memory_destroy(bytes));
  OK(sinter_logger_set_severity(SINTER_SEVERITY_WARNING));
  OK(sinter_logger_set_callback(NULL, NULL));
  /* Errors belong to their thread. */
  CHECK(sinter_device_open("abacus", &(SinterDevice *){NULL}) != SINTER_STATUS_OK);
  pthread_t thread;
  int clean = 0;
  CHECK(pthread_create(&thread, NULL, other_thread, &clean) == 0 && pthread_join(thread, NULL) == 0 && clean == 1);
  CHECK(sinter_last_error_status() == SINTER_STATUS_INVALID_ARGUMENT);
  sinter_last_error_clear();
  CHECK(sinter_last_error_status() == SINTER_STATUS_OK && sinter_last_error_message()[0] == '\0');
}

/* A panic inside of sinter_builder_build: a status, a poisoned builder, and everything else goes on. */
static void panics(void) {
  SinterHostMemory *bytes = (SinterHostMemory *)(void *)&n_checks;
  EXPECT(SINTER_STATUS_INTERNAL, "the test asked for a panic", sinter_builder_build(builder, network, config, &bytes));
  CHECK(bytes == NULL && strstr(sinter_last_error_message(), ".rs:") != NULL);
  EXPECT(SINTER_STATUS_INVALID_STATE, "ended in a panic", sinter_builder_build_engine(builder, network, config, &(SinterEngine *){NULL}));
  SinterContext *c = NULL;
  OK(sinter_context_create(engine, &c));
  OK(sinter_context_destroy(c));
  OK(sinter_builder_destroy(builder));
  OK(sinter_builder_create(device, &builder));
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  prepare(argv[1]);
  if (argc > 2 && strcmp(argv[2], "panic") == 0) {
    panics();
  } else {
    handles();
    arguments();
    contexts();
    progress();
    tuning();
    log_and_errors();
  }
  finish();
  printf("%d checks, %d wrong\n", n_checks, n_wrong);
  return n_wrong != 0;
}
