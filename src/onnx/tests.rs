//! Tests of the container, on messages built here.

use super::external::ExternalFiles;
use super::proto::attribute_proto::AttributeType;
use super::proto::tensor_proto::{DataLocation, DataType};
use super::proto::tensor_shape_proto::{Dimension, dimension};
use super::proto::*;
use super::tensor::{onnx_code_of, tensor_proto};
use super::*;
use crate::base::{DType, Dim, Error, ErrorCode, Shape, Tensor};
use bytes::Bytes;
use half::{bf16, f16};
use prost::Message;
use std::path::{Path, PathBuf};

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("sinter-onnx-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(r: crate::base::Result<T>, code: ErrorCode, parts: &[&str]) -> Error {
    let e = r.expect_err("must be refused");
    assert_eq!(e.code, code, "{e}");
    for p in parts {
        assert!(e.to_string().contains(p), "{p:?} is not in: {e}");
    }
    e
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) }
}

fn external(name: &str, dims: &[i64], entries: &[(&str, &str)]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(DataType::Float as i32),
        data_location: Some(DataLocation::External as i32),
        external_data: entries.iter().map(|(k, v)| entry(k, v)).collect(),
        ..Default::default()
    }
}

fn value(name: &str, dims: &[Option<dimension::Value>]) -> ValueInfoProto {
    let dim = dims.iter().map(|v| Dimension { value: v.clone(), ..Default::default() }).collect();
    let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(TensorShapeProto { dim }) };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto { value, ..Default::default() }),
        ..Default::default()
    }
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.into()), version: Some(version) }
}

fn attr(name: &str, ty: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(ty as i32), ..Default::default() }
}

fn all_attributes() -> Vec<AttributeProto> {
    use AttributeType as T;
    vec![
        AttributeProto { i: Some(-3), ..attr("axis", T::Int) },
        AttributeProto { f: Some(0.5), ..attr("alpha", T::Float) },
        AttributeProto { s: Some(b"SAME_UPPER".to_vec()), ..attr("auto_pad", T::String) },
        AttributeProto { ints: vec![1, 2, 3], ..attr("pads", T::Ints) },
        AttributeProto { floats: vec![1.0, 2.0], ..attr("scales", T::Floats) },
        AttributeProto { strings: vec![b"a".to_vec(), b"b".to_vec()], ..attr("names", T::Strings) },
        AttributeProto { t: Some(Box::new(tensor_proto(&Tensor::scalar(7i64), ""))), ..attr("value", T::Tensor) },
        AttributeProto {
            g: Some(Box::new(GraphProto { name: Some("body".into()), ..Default::default() })),
            ..attr("body", T::Graph)
        },
    ]
}

fn small_model() -> ModelProto {
    let typed = TensorProto {
        dims: vec![2],
        data_type: Some(DataType::Float16 as i32),
        name: Some("h".into()),
        int32_data: vec![0x3c00, 0x4000],
        ..Default::default()
    };
    let node = NodeProto {
        op_type: Some("Test".into()),
        input: vec!["x".into(), "w".into()],
        output: vec!["y".into()],
        attribute: all_attributes(),
        ..Default::default()
    };
    let named = Some(dimension::Value::DimParam("batch".into()));
    let graph = GraphProto {
        node: vec![node],
        input: vec![value("x", &[named, Some(dimension::Value::DimValue(3))])],
        initializer: vec![
            tensor_proto(&Tensor::from_slice(&[2, 2], &[1.0f32, 2.0, 3.0, 4.0]), "w"),
            typed,
            external("e", &[2], &[("location", "e.bin"), ("offset", "4"), ("length", "8")]),
        ],
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17), opset("com.microsoft", 1)],
        producer_name: Some("test".into()),
        graph: Some(graph),
        ..Default::default()
    }
}

/// Asks everything that can be asked of a model; only errors and values may come back.
fn visit(model: &OnnxModel) -> usize {
    let mut good = 0;
    let graph = model.graph();
    good += graph.initializer.iter().filter(|t| model.tensor(t).is_ok()).count();
    let values = graph.input.iter().chain(&graph.output).chain(&graph.value_info);
    good += values.filter(|v| value_info(v).is_ok()).count();
    for node in &graph.node {
        let Ok(a) = AttrReader::new(model, node) else { continue };
        good += a.int_opt("axis").is_ok() as usize + a.float_opt("alpha").is_ok() as usize;
        good += a.string_opt("auto_pad").is_ok() as usize + a.ints("pads").is_ok() as usize;
        good += a.floats("scales").is_ok() as usize + a.strings("names").is_ok() as usize;
        good += a.tensor("value").is_ok() as usize + a.graph_opt("body").is_ok() as usize;
        good += a.finish().is_ok() as usize;
    }
    good
}

/// For each type a tensor and the same tensor in its typed field.
fn typed_cases() -> Vec<(Tensor, TensorProto)> {
    fn typed(t: &Tensor, fill: impl FnOnce(&mut TensorProto)) -> (Tensor, TensorProto) {
        let mut p = TensorProto { raw_data: None, ..tensor_proto(t, "t") };
        fill(&mut p);
        (t.clone(), p)
    }
    let s = &[3usize, 1];
    let halves = [f16::from_f32(1.5), f16::from_f32(-2.0), f16::MAX];
    let brains = [bf16::from_f32(1.5), bf16::from_f32(-2.0), bf16::MIN];
    let small = |d: DType, bytes: [u8; 3]| Tensor::from_bytes(d, s, &bytes).unwrap();
    let f8 = |d: DType| typed(&small(d, [0x3c, 0x85, 0x70]), |p| p.int32_data = vec![0x3c, 0x85, 0x70]);
    vec![
        typed(&small(DType::I4, [1, 0xf8, 7]), |p| p.int32_data = vec![0x81, 0x07]),
        typed(&small(DType::U4, [1, 15, 0]), |p| p.int32_data = vec![0xf1, 0]),
        typed(&small(DType::I2, [1, 0xfe, 0xff]), |p| p.int32_data = vec![0x39]),
        typed(&small(DType::U2, [3, 0, 2]), |p| p.int32_data = vec![0x23]),
        typed(&small(DType::F4E2M1, [3, 12, 8]), |p| p.int32_data = vec![0xc3, 8]),
        f8(DType::F8E4M3FN),
        f8(DType::F8E4M3FNUZ),
        f8(DType::F8E5M2),
        f8(DType::F8E5M2FNUZ),
        f8(DType::F8E8M0),
        typed(&Tensor::from_slice(s, &[1.5f32, -0.0, f32::MAX]), |p| p.float_data = vec![1.5, -0.0, f32::MAX]),
        typed(&Tensor::from_slice(s, &halves), |p| p.int32_data = halves.map(|v| v.to_bits() as i32).to_vec()),
        typed(&Tensor::from_slice(s, &brains), |p| p.int32_data = brains.map(|v| v.to_bits() as i32).to_vec()),
        typed(&Tensor::from_slice(s, &[1.5f64, -2.0, f64::MIN]), |p| p.double_data = vec![1.5, -2.0, f64::MIN]),
        typed(&Tensor::from_slice(s, &[1i8, -128, 127]), |p| p.int32_data = vec![1, -128, 127]),
        typed(&Tensor::from_slice(s, &[1u8, 0, 255]), |p| p.int32_data = vec![1, 0, 255]),
        typed(&Tensor::from_slice(s, &[1i16, -32768, 32767]), |p| p.int32_data = vec![1, -32768, 32767]),
        typed(&Tensor::from_slice(s, &[1u16, 0, 65535]), |p| p.int32_data = vec![1, 0, 65535]),
        typed(&Tensor::from_slice(s, &[1i32, i32::MIN, i32::MAX]), |p| p.int32_data = vec![1, i32::MIN, i32::MAX]),
        typed(&Tensor::from_slice(s, &[1u32, 0, u32::MAX]), |p| p.uint64_data = vec![1, 0, u32::MAX as u64]),
        typed(&Tensor::from_slice(s, &[1i64, i64::MIN, i64::MAX]), |p| p.int64_data = vec![1, i64::MIN, i64::MAX]),
        typed(&Tensor::from_slice(s, &[1u64, 0, u64::MAX]), |p| p.uint64_data = vec![1, 0, u64::MAX]),
        typed(&Tensor::from_slice(s, &[true, false, true]), |p| p.int32_data = vec![1, 0, 1]),
    ]
}

#[test]
fn every_type_round_trips_in_both_encodings() {
    let cases = typed_cases();
    let seen: std::collections::BTreeSet<DType> = cases.iter().map(|(t, _)| t.dtype()).collect();
    assert_eq!(seen.len(), DType::ALL.len(), "a type has no case");
    for (tensor, typed) in cases {
        let raw = TensorProto::decode(write_tensor_bytes(&tensor, "t").as_slice()).unwrap();
        assert!(tensor_of(&raw, None).unwrap().same(&tensor), "raw {tensor:?}");
        let typed = TensorProto::decode(typed.encode_to_vec().as_slice()).unwrap();
        assert!(tensor_of(&typed, None).unwrap().same(&tensor), "typed {tensor:?}");
        assert_eq!(dtype_of(onnx_code_of(tensor.dtype())).unwrap(), tensor.dtype());
    }
}

#[test]
fn aligned_raw_data_is_used_in_place_and_outlives_the_model() {
    let tensor = Tensor::from_slice(&[64], &[1.25f32; 64]);
    let mut model = small_model();
    let pad = |n: usize| "p".repeat(n);
    let mut in_place = 0;
    for n in 0..4 {
        model.producer_name = Some(pad(n + 1)); // moves everything behind it, so that one of the four is aligned
        model.graph.as_mut().unwrap().initializer = vec![tensor_proto(&tensor, "w")];
        let bytes = Bytes::from(model.encode_to_vec());
        let range = bytes.as_ptr_range();
        let opened = OnnxModel::from_bytes(bytes.clone(), None).unwrap();
        let got = opened.tensor(&opened.graph().initializer[0]).unwrap();
        drop(opened);
        in_place += range.contains(&got.bytes().as_ptr()) as usize;
        drop(bytes);
        assert!(got.same(&tensor));
    }
    assert_eq!(in_place, 1);
}

#[test]
fn a_wrong_tensor_is_refused_with_its_name() {
    let w = || tensor_proto(&Tensor::from_slice(&[2], &[1.0f32, 2.0]), "w");
    let go = |t: TensorProto| tensor_of(&t, None);
    let (corrupt, unsupported) = (ErrorCode::CorruptData, ErrorCode::Unsupported);
    refused(go(TensorProto { dims: vec![3], ..w() }), corrupt, &["\"w\"", "12 bytes", "got 8"]);
    refused(go(TensorProto { dims: vec![-2], ..w() }), corrupt, &["\"w\"", "-2"]);
    refused(go(TensorProto { raw_data: None, ..w() }), corrupt, &["\"w\"", "no data"]);
    refused(go(TensorProto { float_data: vec![1.0, 2.0], ..w() }), corrupt, &["float_data, raw_data"]);
    refused(go(TensorProto { raw_data: None, int64_data: vec![1, 2], ..w() }), corrupt, &["float_data", "int64_data"]);
    refused(go(TensorProto { raw_data: None, float_data: vec![1.0], ..w() }), corrupt, &["2 elements, got 1"]);
    refused(go(TensorProto { data_type: Some(99), ..w() }), unsupported, &["\"w\"", "99"]);
    refused(go(TensorProto { data_type: None, ..w() }), unsupported, &["UNDEFINED"]);
    refused(go(TensorProto { data_location: Some(7), ..w() }), unsupported, &["data location 7"]);
    refused(go(TensorProto { segment: Some(Default::default()), ..w() }), unsupported, &["segmented"]);
    refused(go(external("e", &[1], &[("location", "e.bin")])), unsupported, &["\"e\"", "external"]);
    for ty in [DataType::String, DataType::Complex64, DataType::Complex128] {
        let t = TensorProto { data_type: Some(ty as i32), ..w() };
        refused(go(t), unsupported, &["\"w\"", ty.as_str_name()]);
    }
    let byte = TensorProto {
        raw_data: None,
        data_type: Some(DataType::Int8 as i32),
        int32_data: vec![1, 128],
        ..w()
    };
    refused(go(byte), corrupt, &["int32_data", "element 1 is 128", "i8"]);
}

#[test]
fn huge_shapes_are_refused_before_memory_is_taken() {
    let huge = |dims: Vec<i64>| {
        let t = TensorProto { dims, data_type: Some(1), float_data: vec![1.0], ..Default::default() };
        tensor_of(&t, None)
    };
    refused(huge(vec![1 << 40, 1 << 40]), ErrorCode::OutOfMemory, &["too large"]);
    refused(huge(vec![0, 1 << 40, 1 << 40]), ErrorCode::OutOfMemory, &["too large"]);
    refused(huge(vec![1 << 50]), ErrorCode::CorruptData, &["elements, got 1"]);
    refused(huge(vec![0]), ErrorCode::CorruptData, &["0 elements, got 1"]);
    let empty = TensorProto { dims: vec![0, 3], data_type: Some(1), ..Default::default() };
    assert_eq!(tensor_of(&empty, None).unwrap().shape(), &[0, 3]);
}

#[test]
fn external_data_is_found_mapped_once_and_used_in_place() {
    let folder = Folder::new("found");
    let data: Vec<u8> = [0.0f32, 1.0, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    folder.write("sub/w.bin", &data);
    let mut model = small_model();
    model.graph.as_mut().unwrap().initializer = vec![
        external("a", &[4], &[("location", "sub/w.bin"), ("checksum", "0"), ("prepacked_0", "x")]),
        external("b", &[1, 2], &[("location", "./sub/w.bin"), ("offset", "8"), ("length", "8")]),
    ];
    let path = folder.write("m.onnx", &model.encode_to_vec());
    let model = OnnxModel::from_file(&path).unwrap();
    let [a, b] = [0, 1].map(|i| model.tensor(&model.graph().initializer[i]).unwrap());
    drop(model);
    assert_eq!(a.slice::<f32>(), &[0.0, 1.0, 2.0, 3.0]);
    assert_eq!(b.slice::<f32>(), &[2.0, 3.0]);
    assert_eq!(a.bytes()[8..].as_ptr(), b.bytes().as_ptr(), "both point into one mapping");
}

#[test]
fn external_data_that_does_not_fit_is_refused() {
    let folder = Folder::new("misfit");
    folder.write("w.bin", &[0; 16]);
    folder.write("empty.bin", &[]);
    let files = ExternalFiles::new(Some(&folder.0));
    let go = |entries: &[(&str, &str)]| tensor_of(&external("w", &[4], entries), Some(&files));
    let corrupt = ErrorCode::CorruptData;
    assert!(go(&[("location", "w.bin")]).is_ok());
    refused(go(&[]), corrupt, &["\"w\"", "no location"]);
    refused(go(&[("location", "")]), corrupt, &["empty location"]);
    refused(go(&[("location", "w.bin"), ("length", "12")]), corrupt, &["16 bytes", "length says 12"]);
    refused(go(&[("location", "w.bin"), ("offset", "4")]), corrupt, &["offset 4", "file of 16 bytes"]);
    refused(go(&[("location", "w.bin"), ("offset", &u64::MAX.to_string())]), corrupt, &["do not fit"]);
    refused(go(&[("location", "w.bin"), ("offset", "-4")]), corrupt, &["offset", "-4"]);
    refused(go(&[("location", "w.bin"), ("location", "w.bin")]), corrupt, &["location is given twice"]);
    refused(go(&[("location", "empty.bin")]), corrupt, &["file of 0 bytes"]);
    let mut both = external("w", &[4], &[("location", "w.bin")]);
    both.float_data = vec![0.0; 4];
    refused(tensor_of(&both, Some(&files)), corrupt, &["also float_data"]);
    refused(go(&[("location", "gone.bin")]), ErrorCode::NotFound, &["\"w\"", "gone.bin", folder.0.to_str().unwrap()]);
}

#[test]
fn external_data_outside_the_folder_is_refused() {
    let outside = Folder::new("outside");
    let secret = outside.write("secret.bin", &[0; 16]);
    let folder = Folder::new("inside");
    folder.write("w.bin", &[0; 16]);
    folder.write("sub/x.bin", &[0; 16]);
    std::os::unix::fs::symlink(&secret, folder.0.join("link.bin")).unwrap();
    std::os::unix::fs::symlink(&outside.0, folder.0.join("linked")).unwrap();
    std::os::unix::fs::symlink("w.bin", folder.0.join("inner.bin")).unwrap();
    let files = ExternalFiles::new(Some(&folder.0));
    let go = |at: &str| tensor_of(&external("w", &[4], &[("location", at)]), Some(&files));
    let bad = ErrorCode::InvalidArgument;
    refused(go(secret.to_str().unwrap()), bad, &["\"w\"", "must be relative"]);
    refused(go("../x/secret.bin"), bad, &["\"w\"", "'..'"]);
    refused(go("sub/../w.bin"), bad, &["'..'"]);
    refused(go("link.bin"), bad, &["outside the model's folder"]);
    refused(go("linked/secret.bin"), bad, &["outside the model's folder"]);
    refused(go("sub"), bad, &["not a regular file"]);
    assert!(go("inner.bin").is_ok(), "a link inside the folder is fine");
    let none = ExternalFiles::new(None);
    let t = external("w", &[4], &[("location", "w.bin")]);
    refused(tensor_of(&t, Some(&none)), bad, &["without a folder"]);
}

#[test]
fn model_facts_are_read() {
    let mut model = small_model();
    model.producer_version = Some("1.2".into());
    model.opset_import = vec![opset("ai.onnx", 17), opset("com.microsoft", 1)];
    let m = OnnxModel::from_bytes(model.encode_to_vec(), None).unwrap();
    assert_eq!((m.opset(""), m.opset("ai.onnx"), m.opset("com.microsoft")), (Some(17), Some(17), Some(1)));
    assert_eq!(m.opset("ai.onnx.ml"), None);
    assert_eq!((m.ir_version(), m.producer().as_str(), m.base_dir()), (8, "test 1.2", None));
    model.opset_import = vec![opset("", 17), opset("ai.onnx", 18)];
    let twice = OnnxModel::from_bytes(model.encode_to_vec(), None).map(|_| ());
    refused(twice, ErrorCode::Parse, &["17", "18"]);
}

#[test]
fn declared_shapes_become_dimensions() {
    use dimension::Value::{DimParam, DimValue};
    let v = value("x", &[Some(DimParam("batch".into())), Some(DimValue(3)), None, Some(DimValue(-1))]);
    let (dtype, shape) = value_info(&v).unwrap();
    assert_eq!(dtype, DType::F32);
    assert_eq!(shape.unwrap(), Shape(vec![Dim::sym("batch"), 3.into(), Dim::sym("x.2"), Dim::sym("x.3")]));
    refused(value_info(&value("x", &[Some(DimValue(-2))])), ErrorCode::InvalidArgument, &["\"x\"", "axis 0", "-2"]);
    assert_eq!(value_info(&value("s", &[])).unwrap().1, Some(Shape(vec![])), "a scalar has a shape");

    let with = |v| ValueInfoProto {
        name: Some("q".into()),
        r#type: Some(TypeProto { value: v, ..Default::default() }),
        ..Default::default()
    };
    let unranked = with(Some(type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(7), shape: None })));
    assert_eq!(value_info(&unranked).unwrap(), (DType::I64, None));
    let sequence = with(Some(type_proto::Value::SequenceType(Default::default())));
    refused(value_info(&sequence), ErrorCode::Unsupported, &["\"q\"", "a sequence"]);
    refused(value_info(&with(None)), ErrorCode::InvalidArgument, &["\"q\"", "not given"]);
}

#[test]
fn attributes_are_read_by_type_and_leftovers_are_refused() {
    let m = OnnxModel::from_bytes(small_model().encode_to_vec(), None).unwrap();
    let node = &m.graph().node[0];
    let a = AttrReader::new(&m, node).unwrap();
    assert_eq!((a.int("axis", 0).unwrap(), a.int("none", 9).unwrap()), (-3, 9));
    assert_eq!((a.float("alpha", 0.0).unwrap(), a.float_opt("none").unwrap()), (0.5, None));
    assert_eq!(a.string("auto_pad", "NOTSET").unwrap(), "SAME_UPPER");
    assert_eq!((a.ints("pads").unwrap(), a.ints_opt("none").unwrap()), (&[1i64, 2, 3][..], None));
    assert_eq!(a.floats("scales").unwrap(), &[1.0, 2.0]);
    assert_eq!(a.strings("names").unwrap(), ["a", "b"]);
    assert!(a.tensor("value").unwrap().unwrap().same(&Tensor::scalar(7i64)));
    assert_eq!(a.graph("body").unwrap().name(), "body");
    a.finish().unwrap();

    let a = AttrReader::new(&m, node).unwrap();
    let bad = ErrorCode::InvalidArgument;
    refused(a.float("axis", 0.0), bad, &["\"axis\"", "expected FLOAT", "got INT"]);
    refused(a.int_required("none"), bad, &["\"none\" is missing"]);
    refused(a.flag("axis", false), bad, &["0 or 1", "-3"]);
    refused(a.dtype_opt("axis"), ErrorCode::Unsupported, &["\"axis\"", "-3"]);
    a.ignore("pads");
    let left = refused(a.finish(), ErrorCode::Unsupported, &["\"alpha\", \"auto_pad\", \"body\""]);
    assert!(!left.to_string().contains("pads") && !left.to_string().contains("axis"), "{left}");
}

#[test]
fn doubled_and_dangling_attributes_are_refused() {
    let m = OnnxModel::from_bytes(small_model().encode_to_vec(), None).unwrap();
    let node = |attribute| NodeProto { attribute, ..Default::default() };
    let twice = node(vec![attr("k", AttributeType::Int), attr("k", AttributeType::Int)]);
    refused(AttrReader::new(&m, &twice).map(|_| ()), ErrorCode::InvalidArgument, &["\"k\"", "twice"]);
    let refers = node(vec![AttributeProto { ref_attr_name: Some("p".into()), ..attr("k", AttributeType::Int) }]);
    let a = AttrReader::new(&m, &refers).unwrap();
    refused(a.int("k", 0), ErrorCode::InvalidArgument, &["\"k\"", "\"p\""]);
    let hollow = node(vec![attr("t", AttributeType::Tensor), attr("z", AttributeType::Int)]);
    let a = AttrReader::new(&m, &hollow).unwrap();
    refused(a.tensor("t"), ErrorCode::CorruptData, &["\"t\"", "no value"]);
    assert_eq!(a.int("z", 5).unwrap(), 0, "a zero may be left out by the writer");
}

#[test]
fn tensor_files_round_trip() {
    let folder = Folder::new("pb");
    let tensor = Tensor::from_slice(&[2, 3], &[1i64, -2, 3, -4, 5, -6]);
    let path = folder.write("input_0.pb", &write_tensor_bytes(&tensor, "x"));
    assert!(read_tensor_file(&path).unwrap().same(&tensor));
    refused(read_tensor_file(folder.0.join("no.pb")), ErrorCode::NotFound, &["no.pb"]);
    let bad = folder.write("bad.pb", &[0xff; 40]);
    refused(read_tensor_file(&bad), ErrorCode::Parse, &["bad.pb", "TensorProto"]);
}

#[test]
fn files_that_are_no_models_are_refused() {
    let folder = Folder::new("nomodel");
    let open = |p: &Path| OnnxModel::from_file(p).map(|_| ());
    refused(open(&folder.0.join("none.onnx")), ErrorCode::NotFound, &["none.onnx"]);
    refused(open(&folder.0), ErrorCode::InvalidArgument, &["not a regular file"]);
    refused(open(&folder.write("empty.onnx", b"")), ErrorCode::Parse, &["empty.onnx", "0 bytes"]);
    refused(open(&folder.write("text.onnx", b"hello, I am no model")), ErrorCode::Parse, &["not an ONNX model"]);
    let bare = ModelProto { ir_version: Some(8), ..Default::default() }.encode_to_vec();
    refused(open(&folder.write("bare.onnx", &bare)), ErrorCode::Parse, &["no graph"]);
}

#[test]
fn truncated_models_give_errors_not_panics() {
    let bytes = small_model().encode_to_vec();
    for n in 0..bytes.len() {
        if let Ok(model) = OnnxModel::from_bytes(bytes[..n].to_vec(), None) {
            visit(&model);
        }
    }
    // The graph is one field: a cut inside it can never pass as a model.
    assert!(OnnxModel::from_bytes(bytes[..bytes.len() / 2].to_vec(), None).is_err());
}

#[test]
fn every_changed_byte_gives_an_error_or_a_model() {
    let folder = Folder::new("flip");
    folder.write("e.bin", &[0; 16]);
    let bytes = small_model().encode_to_vec();
    let whole = visit(&OnnxModel::from_bytes(bytes.clone(), Some(&folder.0)).unwrap());
    assert_eq!(whole, 3 + 1 + 8 + 1, "all of the undamaged model can be read");
    for at in 0..bytes.len() {
        let flips = (0..8).map(|bit| bytes[at] ^ (1 << bit)).chain([0, 0x7f, 0x80, 0xff]);
        for byte in flips {
            let mut damaged = bytes.clone();
            damaged[at] = byte;
            if let Ok(model) = OnnxModel::from_bytes(damaged, Some(&folder.0)) {
                assert!(visit(&model) <= whole + 1);
            }
        }
    }
}

#[test]
fn deep_nesting_ends_in_an_error() {
    // An If inside an If inside an If ...: far deeper than the decoder's limit, built from the inside out as bytes.
    let mut graph = GraphProto::default().encode_to_vec();
    for _ in 0..500 {
        let field = |tag: u8, body: &[u8]| [field_head(tag, body.len() as u64), body.to_vec()].concat();
        graph = field(1, &field(5, &field(6, &graph))); // graph.node, node.attribute, attribute.g
    }
    let model = [field_head(7, graph.len() as u64), graph].concat();
    refused(OnnxModel::from_bytes(model, None).map(|_| ()), ErrorCode::Parse, &["recursion"]);
}

/// Key and length of a length-delimited field.
fn field_head(tag: u8, len: u64) -> Vec<u8> {
    let mut head = vec![tag << 3 | 2];
    prost::encoding::encode_varint(len, &mut head);
    head
}

#[test]
fn offsets_and_models_over_two_gib_are_mapped_not_read() {
    use std::os::unix::fs::FileExt;
    let folder = Folder::new("large");
    const GIB: u64 = 1 << 30;
    // Both files are sparse: only the pages that are written or read exist.
    let weights = std::fs::File::create(folder.0.join("w.bin")).unwrap();
    weights.set_len(5 * GIB).unwrap();
    weights.write_all_at(&7.5f32.to_le_bytes(), 5 * GIB - 4).unwrap();
    let files = ExternalFiles::new(Some(&folder.0));
    let t = external("w", &[1], &[("location", "w.bin"), ("offset", &(5 * GIB - 4).to_string())]);
    assert_eq!(tensor_of(&t, Some(&files)).unwrap().slice::<f32>(), &[7.5]);

    let n = 3 * GIB;
    let declared = TensorProto { dims: vec![n as i64], data_type: Some(DataType::Uint8 as i32), ..Default::default() };
    let tensor = [declared.encode_to_vec(), field_head(9, n)].concat();
    let initializer = [field_head(5, tensor.len() as u64 + n), tensor].concat();
    let model = [field_head(7, initializer.len() as u64 + n), initializer].concat();
    let path = folder.write("large.onnx", &model);
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(model.len() as u64 + n).unwrap();
    file.write_all_at(&[9], model.len() as u64 + n - 1).unwrap();
    let model = OnnxModel::from_file(&path).unwrap();
    let tensor = model.tensor(&model.graph().initializer[0]).unwrap();
    assert_eq!((tensor.numel() as u64, tensor.bytes().last()), (n, Some(&9)));
}

#[test]
fn the_examples_model_and_its_samples_agree() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples_c/models");
    let model = OnnxModel::from_file(folder.join("digits.onnx")).unwrap();
    assert_eq!(model.opset(""), Some(17));
    let (dtype, shape) = value_info(&model.graph().input[0]).unwrap();
    let batch = Dim::sym("batch");
    assert_eq!((dtype, shape), (DType::F32, Some(Shape(vec![batch, 1.into(), 8.into(), 8.into()]))));
    for t in &model.graph().initializer {
        assert_eq!(model.tensor(t).unwrap().dtype(), DType::F32, "{}", t.name());
    }
    let samples = std::fs::read(folder.join("digits_samples.bin")).unwrap();
    let data = folder.join("digits/test_data_set_0");
    let input = read_tensor_file(data.join("input_0.pb")).unwrap();
    let output = read_tensor_file(data.join("output_0.pb")).unwrap();
    assert_eq!((samples.len(), input.shape(), output.shape()), (650, &[10, 1, 8, 8][..], &[10, 10][..]));
    let rows = samples.chunks(65).zip(input.slice::<f32>().chunks(64)).zip(output.slice::<f32>().chunks(10));
    for (digit, ((record, image), answer)) in rows.enumerate() {
        assert!(record.iter().zip(image).all(|(byte, pixel)| *byte as f32 == *pixel), "image of {digit}");
        assert_eq!(record[64] as usize, digit);
        assert!(answer[digit] > 0.5, "ONNX Runtime's answer for {digit}");
    }
}

#[test]
fn the_stated_bound_on_decoded_size_holds_for_every_message() {
    // The worst case of the module doc: a repeated message that is empty takes two bytes in the file. A vector of one
    // element has room for four of them; a growing one takes three times what it holds for a moment.
    let sizes = [
        std::mem::size_of::<AttributeProto>(),
        std::mem::size_of::<NodeProto>(),
        std::mem::size_of::<GraphProto>(),
        std::mem::size_of::<TensorProto>(),
        std::mem::size_of::<SparseTensorProto>(),
        std::mem::size_of::<TrainingInfoProto>(),
        std::mem::size_of::<FunctionProto>(),
        std::mem::size_of::<ValueInfoProto>(),
    ];
    let per_file_byte = sizes.iter().max().unwrap() * 4 / 2;
    assert!(per_file_byte <= 1500, "{per_file_byte} bytes for each byte of a file; sizes {sizes:?}");
}
