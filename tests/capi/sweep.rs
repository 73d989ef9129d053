//! Misuse of every function, made from the header: NULL for each pointer, a handle of another type and a destroyed one
//! for each handle, a number out of range for each enum and tensor id. A function that is added is covered at once.

use super::header::without_comments;
use super::tools::header;
use std::fmt::Write;

const HANDLES: [&str; 12] = [
    "SinterHostMemory",
    "SinterDevice",
    "SinterBuffer",
    "SinterProfile",
    "SinterAttributes",
    "SinterNetwork",
    "SinterBuilderConfig",
    "SinterBuilder",
    "SinterTimingCache",
    "SinterRuntime",
    "SinterEngine",
    "SinterContext",
];

/// Parameters that may be NULL, wherever they occur or in one function.
const NULLABLE: &[&str] = &[
    "userdata",
    "callback",
    "symbols",
    "window",
    "attributes",
    "config",
    "length_out",
    "n_dims_out",
    "folder",
    "domain",
    "stream",
    "input_consumed_event",
    "index_out",
    "free_out",
    "total_out",
    "data_out",
    "size_out",
    "address",
    "permutation",
    "shape",
    "step",
    "sizes",
    "scales",
    "bytes_out@sinter_buffer_get_address",
    "address_out@sinter_buffer_get_address",
    "name@sinter_device_open",
    "name@sinter_network_create",
    "event@sinter_event_destroy",
    "changed_out",
    "count_out@sinter_timing_cache_get_keys",
    "cache@sinter_builder_config_set_timing_cache",
];

struct Param {
    kind: String,
    name: String,
}

impl Param {
    fn is_pointer(&self) -> bool {
        self.kind.ends_with('*')
    }

    /// The handle type, for a handle that is passed in.
    fn handle(&self) -> Option<&'static str> {
        let base = self.kind.strip_suffix('*')?.trim().trim_start_matches("const ").trim();
        HANDLES.into_iter().find(|h| *h == base)
    }

    fn may_be_null(&self, function: &str) -> bool {
        let adds = function.starts_with("sinter_network_add_") && self.name == "name";
        let destroyed = function.ends_with("_destroy") && self.handle().is_some() && self.name != "device";
        let destroyed = destroyed || (function == "sinter_device_destroy" && self.name == "device");
        let not_input = !(function == "sinter_network_add_input" && self.name == "name");
        (adds && not_input)
            || destroyed
            || NULLABLE.contains(&self.name.as_str())
            || NULLABLE.contains(&format!("{}@{function}", self.name).as_str())
    }

    /// An argument that is right.
    fn valid(&self) -> String {
        if let Some(h) = self.handle() {
            return format!("live_{h}");
        }
        let kind = self.kind.as_str();
        match kind {
            _ if kind.ends_with("**") && HANDLES.iter().any(|h| kind.starts_with(&format!("{h} "))) => {
                format!("&made_{}", kind.split(' ').next().unwrap())
            }
            _ if kind.ends_with("Callback") => "NULL".into(),
            "const char *" => "\"x\"".into(),
            "const char *const *" => "texts".into(),
            "const SinterWindow *" => "&window".into(),
            "SinterDeviceProperties *" => "&properties".into(),
            "const SinterTensorId *" => "ids".into(),
            "const int64_t *" => "ones".into(),
            "const float *" => "floats".into(),
            "void *" if self.name.contains("stream") => "stream".into(),
            "void *" if self.name.contains("event") || self.name == "start" || self.name == "end" => "event".into(),
            _ if self.is_pointer() => "(void *)memory".into(),
            "size_t" if self.name.starts_with("index") || self.name == "profile" => "0".into(),
            "size_t" if self.name == "capacity" => "16".into(),
            "size_t" if self.name == "data_bytes" || self.name == "bytes" || self.name == "size" => "4".into(),
            "size_t" => "1".into(),
            "SinterDataType" => "SINTER_DATA_TYPE_FLOAT32".into(),
            _ => "0".into(),
        }
    }
}

struct Function {
    name: String,
    params: Vec<Param>,
}

fn functions(code: &str) -> Vec<Function> {
    let code = code.replace("struct ", "");
    let mut out = Vec::new();
    for part in code.split("SINTER_API").skip(1) {
        let Some(part) = part.trim_start().strip_prefix("SinterStatus ") else { continue };
        let text = &part[..part.find(");").expect("a declaration ends")];
        let (name, args) = text.split_once('(').expect("a function has parameters");
        let mut params = Vec::new();
        for a in args.split(',').map(str::trim).filter(|a| *a != "void") {
            let at = a.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).expect("a parameter has a type and a name");
            params.push(Param { kind: a[..=at].trim().into(), name: a[at + 1..].into() });
        }
        out.push(Function { name: name.into(), params });
    }
    out
}

/// Types that travel as numbers and are checked.
fn enums(code: &str) -> Vec<String> {
    let names =
        code.lines().filter_map(|l| l.strip_prefix("typedef int32_t ")).map(|l| l.trim_end_matches(';').to_string());
    names.filter(|n| n != "SinterStatus" && n != "SinterTensorId").collect()
}

/// The program.
pub fn program() -> String {
    let code = without_comments(&std::fs::read_to_string(header()).unwrap());
    let enums = enums(&code);
    assert!(enums.len() >= 12, "enums found: {enums:?}");
    let mut calls = String::new();
    let mut n = 0;
    for f in functions(&code) {
        let call = |changed: usize, to: &str| {
            let args = f.params.iter().enumerate().map(|(i, p)| if i == changed { to.to_string() } else { p.valid() });
            format!("{}({})", f.name, args.collect::<Vec<_>>().join(", "))
        };
        let mut add = |expected: &str, call: String| {
            n += 1;
            writeln!(calls, "  expect({expected}, {call}, {call:?});").unwrap();
        };
        for (i, p) in f.params.iter().enumerate() {
            if p.is_pointer() {
                add(if p.may_be_null(&f.name) { "NULL" } else { "\"NULL\"" }, call(i, "NULL"));
            }
            if let Some(h) = p.handle() {
                let other = if h == "SinterDevice" { "SinterNetwork" } else { "SinterDevice" };
                add("\"expected \"", call(i, &format!("(void *)live_{other}")));
                add("\"destroyed\"", call(i, &format!("dead_{h}")));
            }
            if enums.contains(&p.kind) && f.name != "sinter_status_name" {
                for bad in ["9999", "-1"] {
                    add(&format!("\"{bad}\""), call(i, bad));
                }
            }
            if p.kind == "SinterTensorId" {
                add("\"no tensor with id 9999\"", call(i, "9999"));
                add("\"no tensor with id -2\"", call(i, "-2"));
            }
        }
    }
    assert!(n > 500, "only {n} calls");
    let mut globals = String::new();
    let mut ends = String::new();
    for h in HANDLES {
        writeln!(globals, "static {h} *live_{h}, *dead_{h}, *made_{h};").unwrap();
        let snake = snake(h);
        writeln!(ends, "  if (made_{h} != NULL) {snake}_destroy(made_{h});\n  made_{h} = NULL;").unwrap();
    }
    TEMPLATE.replace("@GLOBALS@", &globals).replace("@FORGET@", &ends).replace("@CALLS@", &calls)
}

fn snake(camel: &str) -> String {
    let mut out = String::new();
    for c in camel.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(c.to_lowercase());
    }
    out
}

const TEMPLATE: &str = r#"/* Generated by tests/capi/sweep.rs. */
#include <sinter.h>

#include <stdio.h>
#include <string.h>

@GLOBALS@
static const char *const texts[16] = {"x", "x", "x", "x", "x", "x", "x", "x", "x", "x", "x", "x", "x", "x", "x", "x"};
static const int64_t ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
static const float floats[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
static const SinterTensorId ids[16] = {0};
static int64_t memory[64];
static SinterWindow window;
static SinterDeviceProperties properties;
static void *stream, *event;
static int n_checks, n_wrong;

static void quiet(void *userdata, SinterSeverity severity, const char *message) {
  (void)userdata, (void)severity, (void)message;
}

/* Wrong: INVALID_ARGUMENT with this text. NULL: whatever is right, but no bug and no status without a sentence. */
static void expect(const char *text, SinterStatus status, const char *call) {
  const char *message = sinter_last_error_message();
  int fine = status != SINTER_STATUS_INTERNAL && (status == SINTER_STATUS_OK || strlen(message) > 20);
  if (text != NULL) fine = fine && status == SINTER_STATUS_INVALID_ARGUMENT && strstr(message, text) != NULL;
  n_checks++;
  if (!fine) {
    n_wrong++;
    printf("%s\n  gave %s: %s\n", call, sinter_status_name(status), message);
    printf("  expected \"%s\"\n", text == NULL ? "" : text);
  }
@FORGET@  sinter_logger_set_callback(quiet, NULL);
}

static void must(SinterStatus status) {
  if (status != SINTER_STATUS_OK) {
    printf("%s\n", sinter_last_error_message());
    n_wrong++;
  }
}

static void make(void) {
  const int64_t dims[] = {1, 1, 4, 4};
  SinterTensorId x = 0, y = 0;
  must(sinter_device_open("cpu", &live_SinterDevice));
  must(sinter_buffer_create(live_SinterDevice, 64, &live_SinterBuffer));
  must(sinter_profile_create(&live_SinterProfile));
  must(sinter_attributes_create(&live_SinterAttributes));
  must(sinter_network_create("n", &live_SinterNetwork));
  must(sinter_network_add_input(live_SinterNetwork, "x", SINTER_DATA_TYPE_FLOAT32, dims, 4, NULL, &x));
  must(sinter_network_add_activation(live_SinterNetwork, "act", SINTER_ACTIVATION_RELU, x, 0, 0, &y));
  must(sinter_network_mark_output(live_SinterNetwork, y, "out"));
  must(sinter_builder_config_create(&live_SinterBuilderConfig));
  must(sinter_builder_create(live_SinterDevice, &live_SinterBuilder));
  must(sinter_timing_cache_create(NULL, 0, &live_SinterTimingCache));
  must(sinter_runtime_create(live_SinterDevice, &live_SinterRuntime));
  must(sinter_builder_build(live_SinterBuilder, live_SinterNetwork, NULL, &live_SinterHostMemory));
  must(sinter_builder_build_engine(live_SinterBuilder, live_SinterNetwork, NULL, &live_SinterEngine));
  must(sinter_context_create(live_SinterEngine, &live_SinterContext));
}

static void destroy(void) {
  must(sinter_context_destroy(live_SinterContext));
  must(sinter_engine_destroy(live_SinterEngine));
  must(sinter_host_memory_destroy(live_SinterHostMemory));
  must(sinter_runtime_destroy(live_SinterRuntime));
  must(sinter_timing_cache_destroy(live_SinterTimingCache));
  must(sinter_builder_destroy(live_SinterBuilder));
  must(sinter_builder_config_destroy(live_SinterBuilderConfig));
  must(sinter_network_destroy(live_SinterNetwork));
  must(sinter_attributes_destroy(live_SinterAttributes));
  must(sinter_profile_destroy(live_SinterProfile));
  must(sinter_buffer_destroy(live_SinterBuffer));
  must(sinter_device_destroy(live_SinterDevice));
}

int main(void) {
  must(sinter_logger_set_callback(quiet, NULL));
  make();
  dead_SinterDevice = live_SinterDevice, dead_SinterBuffer = live_SinterBuffer, dead_SinterProfile = live_SinterProfile;
  dead_SinterAttributes = live_SinterAttributes, dead_SinterNetwork = live_SinterNetwork;
  dead_SinterBuilderConfig = live_SinterBuilderConfig, dead_SinterBuilder = live_SinterBuilder;
  dead_SinterTimingCache = live_SinterTimingCache;
  dead_SinterRuntime = live_SinterRuntime, dead_SinterHostMemory = live_SinterHostMemory;
  dead_SinterEngine = live_SinterEngine, dead_SinterContext = live_SinterContext;
  destroy();
  make();
  must(sinter_stream_create(live_SinterDevice, &stream));
  must(sinter_event_create(live_SinterDevice, 1, &event));
  window.struct_size = sizeof window;
  properties.struct_size = sizeof properties;
@CALLS@
  must(sinter_event_destroy(live_SinterDevice, event));
  must(sinter_stream_destroy(live_SinterDevice, stream));
  destroy();
  printf("%d checks, %d wrong\n", n_checks, n_wrong);
  return n_wrong != 0;
}
"#;
