//! Runs the launches of CUDA tactics on the host, from their arguments alone, and compares with the reference: sizes,
//! strides, splits and the operands of epilogues are right without a GPU. What the kernels compute is written here a second
//! time, from the comments at their heads; how they compute it is tested on a GPU.

use super::steps::{eval, infer, problem, random};
use super::product_cases::{conv, conv_transpose, matmul, pool};
use sinter::base::{DType, Fact, Tensor};
use sinter::device::DeviceProps;
use sinter::ops::conv::Conv;
use sinter::ops::matmul::MatMul;
use sinter::ops::pointwise::{Pointwise, Program};
use sinter::ops::{Arg, DeviceOp, EvalCx, KernelSpec, Launch, LibraryGemm, Op, OpDef, Problem, Tactic, TacticOptions, TensorMap};
use std::collections::HashMap;

#[path = "cuda_sim_nhwc.rs"]
mod nhwc;

/// Memory of a step: every buffer as f64, by the argument that names it.
struct Memory<'a> {
    inputs: Vec<Option<Vec<f64>>>,
    outputs: Vec<Vec<f64>>,
    work: HashMap<usize, Vec<f64>>,
    epilogue: Option<&'a Program>,
}

fn i64s(a: &Arg) -> Vec<i64> {
    let Arg::Bytes(b) = a else { panic!("expected a struct, got {a:?}") };
    b.chunks_exact(8).map(|c| i64::from_ne_bytes(c.try_into().unwrap())).collect()
}

fn i32s(a: &Arg) -> Vec<i64> {
    let Arg::Bytes(b) = a else { panic!("expected a struct, got {a:?}") };
    b.chunks_exact(4).map(|c| i32::from_ne_bytes(c.try_into().unwrap()) as i64).collect()
}

fn define(s: &KernelSpec, name: &str) -> i64 {
    let value = s.defines.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    value.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("{}: {name} is not a number: {value:?}", s.file))
}

fn up(a: i64, b: i64) -> i64 {
    (a + b - 1) / b
}

impl Memory<'_> {
    fn read(&self, a: &Arg) -> &[f64] {
        match a {
            Arg::In(i) => self.inputs[*i].as_ref().expect("an operand that is there"),
            Arg::Out(i) => &self.outputs[*i],
            Arg::Work(at) => &self.work[at],
            other => panic!("{other:?} is no address"),
        }
    }

    fn write(&mut self, a: &Arg, values: Vec<f64>) {
        match a {
            Arg::Out(i) => {
                assert_eq!(self.outputs[*i].len(), values.len());
                self.outputs[*i] = values;
            }
            Arg::Work(at) => drop(self.work.insert(*at, values)),
            other => panic!("{other:?} cannot be written"),
        }
    }

    /// Bias and epilogue of results with their coordinates. `args` are e0..e3 and the strides.
    fn finish(&self, spec: &KernelSpec, args: &[Arg], x: &mut [f64], coords: &[[i64; 5]], bias: &Arg, bias_dim: usize) {
        if define(spec, "HAS_BIAS") == 1 {
            let b = self.read(bias);
            x.iter_mut().zip(coords).for_each(|(x, c)| *x += b[c[bias_dim] as usize]);
        } else {
            assert!(*bias == Arg::Null || spec.file != "gemm_simt.cu", "a bias that the kernel does not add");
        }
        if define(spec, "EPILOGUE") == 0 {
            return;
        }
        let p = self.epilogue.expect("a program");
        let strides = i64s(&args[4]);
        let mut tensors = vec![Tensor::from_slice(&[x.len()], x).cast(p.inputs[0])];
        for j in 0..p.n_inputs() - 1 {
            let e = self.read(&args[j]);
            let at = |c: &[i64; 5]| (0..5).map(|d| c[d] * strides[j * 5 + d]).sum::<i64>() as usize;
            let values: Vec<f64> = coords.iter().map(|c| e[at(c)]).collect();
            tensors.push(Tensor::from_slice(&[x.len()], &values).cast(p.inputs[j + 1]));
        }
        let refs: Vec<Option<&Tensor>> = tensors.iter().map(Some).collect();
        let outputs = [Fact::new(p.output_dtype(0), &[x.len()][..])];
        let y = Pointwise { program: p.clone() }.eval(&EvalCx { inputs: &refs, outputs: &outputs }).unwrap();
        x.copy_from_slice(&y[0].to_f64s());
    }

    fn gemm(&mut self, spec: &KernelSpec, l: &Launch) {
        let p = i64s(&l.args[4]);
        let [m, n, k, lda, ldb, ldc] = p[..6].try_into().unwrap();
        let (batch, sa, sb, sc) = (&p[6..9], &p[9..12], &p[12..15], &p[15..18]);
        let (bm, bn, bk) = (define(spec, "BLOCK_M"), define(spec, "BLOCK_N"), define(spec, "BLOCK_K"));
        let n_batch: i64 = batch.iter().product();
        assert_eq!(l.grid[0] as i64, up(m, bm) * up(n, bn) * n_batch, "tiles");
        let is_mma = spec.file != "gemm_simt.cu";
        let (ta, tb) = (define(spec, "TRANS_A") == 1, define(spec, "TRANS_B") == 1);
        let vector = match is_mma {
            true if define(spec, "ALIGNED") == 1 => 8,
            true => 1,
            false => define(spec, "VEC"),
        };
        let inner = [if ta { m } else { k }, if tb { k } else { n }, lda, ldb];
        assert!(inner.iter().all(|v| v % vector == 0), "rows of whole vectors");
        let Arg::F32(alpha) = l.args[5] else { panic!("alpha") };
        let splits = l.grid[1] as i64;
        let each = up(up(k, bk), splits) * bk;
        let (a, b) = (self.read(&l.args[0]), self.read(&l.args[1]));
        let total = n_batch * m * n;
        let (mut x, mut at, mut coords) = (Vec::new(), Vec::new(), Vec::new());
        for split in 0..splits {
            let ks = split * each..((split + 1) * each).min(k);
            for i in 0..total {
                let (bi, row, col) = (i / (m * n), i / n % m, i % n);
                let c = [bi / batch[2] / batch[1], bi / batch[2] % batch[1], bi % batch[2]];
                let offset = |s: &[i64]| c[0] * s[0] + c[1] * s[1] + c[2] * s[2];
                let (oa, ob) = (offset(sa), offset(sb));
                let sum: f64 = ks
                    .clone()
                    .map(|kk| {
                        let ai = oa + if ta { kk * lda + row } else { row * lda + kk };
                        let bi = ob + if tb { col * ldb + kk } else { kk * ldb + col };
                        a[ai as usize] * b[bi as usize]
                    })
                    .sum();
                x.push(sum * alpha as f64);
                at.push(split * total + offset(sc) + row * ldc + col);
                coords.push([c[0], c[1], c[2], row, col]);
            }
        }
        let bias_dim = if define(spec, "BIAS_ROWS") == 1 { 3 } else { 4 };
        self.finish(spec, &l.args[6..], &mut x, &coords, &l.args[2], bias_dim);
        self.scatter(&l.args[3], &x, &at);
    }

    /// `gemm_wgmma_sm90.cu`, as its tensor maps say.
    fn wgmma(&mut self, spec: &KernelSpec, l: &Launch) {
        let map = |i: usize| if let Arg::TensorMap(map) = &l.args[i] { map } else { panic!("argument {i} is no map") };
        let (a_map, b_map, c_map, r_map) = (map(0), map(1), map(2), map(3));
        let (a_by_k, b_by_k) = (define(spec, "TRANS_A") == 0, define(spec, "TRANS_B") == 1);
        let p = i32s(&l.args[6]);
        let (m, n) = (p[0], p[1]);
        let (batch, step_a, step_b) = (&p[6..9], &p[9..12], &p[12..15]);
        let k = a_map.dims[if a_by_k { 0 } else { 1 }] as i64;
        let dims = |rows: i64, columns: i64, map: &sinter::ops::TensorMap| {
            assert_eq!(map.dims[..2], [columns as u64, rows as u64]);
            assert_eq!(map.dims.len(), if define(spec, "BATCHED") == 1 { 3 } else { 2 });
            *map.dims.get(2).unwrap_or(&1) as i64
        };
        let count_a = if a_by_k { dims(m, k, a_map) } else { dims(k, m, a_map) };
        let count_b = if b_by_k { dims(n, k, b_map) } else { dims(k, n, b_map) };
        let count_c: i64 = batch.iter().product();
        assert_eq!((dims(m, n, c_map), dims(m, n, r_map)), (count_c, count_c));
        assert_eq!(l.args[5], c_map.base);
        let (bm, bn) = (define(spec, "TILE_M") * define(spec, "CLUSTER"), define(spec, "TILE_N"));
        let tile_k = define(spec, "TILE_K");
        assert_eq!(p[2..5], [up(k, tile_k), up(m, bm), up(n, bn)]);
        let Arg::F32(alpha) = l.args[7] else { panic!("alpha") };
        let (a, b) = (self.read(&a_map.base), self.read(&b_map.base));
        let (mut x, mut coords) = (Vec::new(), Vec::new());
        for i in 0..count_c * m * n {
            let (z, row, col) = (i / (m * n), i / n % m, i % n);
            let at = [z / batch[2] / batch[1], z / batch[2] % batch[1], z % batch[2]];
            let matrix = |steps: &[i64]| (0..3).map(|d| at[d] * steps[d]).sum::<i64>();
            let (za, zb) = (matrix(step_a), matrix(step_b));
            assert!(za < count_a && zb < count_b);
            let term = |kk: i64| {
                let ai = za * m * k + if a_by_k { row * k + kk } else { kk * m + row };
                let bi = zb * n * k + if b_by_k { col * k + kk } else { kk * n + col };
                a[ai as usize] * b[bi as usize]
            };
            x.push((0..k).map(term).sum::<f64>() * alpha as f64);
            coords.push([at[0], at[1], at[2], row, col]);
        }
        let args = &l.args[8..];
        let strides = i64s(&args[4]);
        for j in 0..4 {
            let kind = spec.defines.iter().find(|(name, _)| *name == format!("EXTRA_KIND{j}")).map(|(_, v)| v.as_str());
            let same = |want: [i64; 5]| {
                let sizes = [batch[0], batch[1], batch[2], m, n];
                (0..5).all(|d| sizes[d] == 1 || strides[j * 5 + d] == want[d])
            };
            match kind {
                Some("1") => assert!(r_map.base == args[j] && same([batch[1] * batch[2] * m * n, batch[2] * m * n, m * n, n, 1])),
                Some("2") => assert!(same([0, 0, 0, 0, 1])),
                _ => {}
            }
        }
        let bias_dim = if define(spec, "BIAS_ROWS") == 1 { 3 } else { 4 };
        self.finish(spec, args, &mut x, &coords, &l.args[4], bias_dim);
        self.write(&c_map.base, x);
    }

    /// `conv_wgmma_sm90.cu`, as its tensor maps say.
    fn conv_wgmma(&mut self, spec: &KernelSpec, l: &Launch) {
        let map = |i: usize| if let Arg::TensorMap(map) = &l.args[i] { map } else { panic!("argument {i} is no map") };
        let (x_map, w_map, y_map, r_map) = (map(0), map(1), map(2), map(3));
        let im2col = x_map.im2col.as_ref().expect("a map that gathers");
        let size = |m: &TensorMap, i: usize| m.dims[i] as i64;
        let [c, w, h, n] = [0, 1, 2, 3].map(|i| size(x_map, i));
        let (taps, m, rows) = (size(w_map, 1), size(w_map, 2), size(y_map, 1));
        assert_eq!((size(w_map, 0), size(y_map, 0)), (c, m), "channels");
        let bytes = x_map.dtype.size() as i64;
        assert_eq!(x_map.strides_bytes, [c, w * c, h * w * c].map(|v| (v * bytes) as u64));
        assert_eq!(w_map.strides_bytes, [c, taps * c].map(|v| (v * bytes) as u64));
        let v = i32s(&l.args[6]);
        let (tile, taps_of) = v.split_at(6);
        let [pq, q, sh, sw, ph, pw, dh, dw, s, c_blocks, steps] = taps_of[..11].try_into().unwrap();
        for (i, d) in [pq, q, s, c_blocks].into_iter().enumerate() {
            check_magic(taps_of[11 + 2 * i] as u32, taps_of[12 + 2 * i] as u32, d);
        }
        // Positions that the map walks over are the output's.
        let positions = |size: i64, i: usize| (size - 1 + (im2col.upper[i] - im2col.lower[i]) as i64) / im2col.strides[i] as i64 + 1;
        assert_eq!([positions(w, 0), positions(h, 1)], [q, pq / q], "positions");
        assert_eq!([im2col.lower[0], im2col.lower[1]], [-pw as i32, -ph as i32]);
        assert_eq!([im2col.strides[0] as i64, im2col.strides[1] as i64], [sw, sh]);
        assert_eq!((rows, taps % s), (n * pq, 0));
        let (tile_m, tile_n) = (define(spec, "TILE_M"), define(spec, "TILE_N"));
        let (cluster, split, block) = (define(spec, "CLUSTER"), define(spec, "SPLIT_K"), 128 / x_map.dtype.size() as i64);
        assert_eq!((c_blocks, steps), (up(c, block), taps * up(c, block)));
        let k_steps = up(steps, define(spec, "TILE_K") / block);
        assert_eq!(tile, [rows, m, k_steps, up(rows, tile_m * cluster), up(m, tile_n), tile[5]]);
        assert_eq!((x_map.tile[0] as i64, x_map.tile[1] as i64), (block, tile_m));
        assert_eq!(w_map.tile.iter().map(|v| *v as i64).collect::<Vec<_>>(), [block, 1, tile_n / cluster]);
        let tiles = tile[3] * tile[4];
        let blocks = l.grid[0] as i64;
        assert!(if split > 1 { blocks == tiles * split } else { blocks % cluster == 0 && blocks <= tiles * cluster && blocks > 0 });
        let (x, f) = (self.read(&x_map.base), self.read(&w_map.base));
        let (mut y, mut coords) = (Vec::new(), Vec::new());
        for (row, channel) in (0..rows * m).map(|i| (i / m, i % m)) {
            let (image, pixel) = (row / pq, row % pq);
            let mut sum = 0.0;
            for tap in 0..taps {
                let at_h = pixel / q * sh - ph + tap / s * dh;
                let at_w = pixel % q * sw - pw + tap % s * dw;
                if (0..h).contains(&at_h) && (0..w).contains(&at_w) {
                    let from = ((image * h + at_h) * w + at_w) * c;
                    sum += (0..c).map(|i| x[(from + i) as usize] * f[((channel * taps + tap) * c + i) as usize]).sum::<f64>();
                }
            }
            y.push(sum);
            let by_image = define(spec, "BY_IMAGE");
            coords.push([image * by_image, pixel * by_image, 0, row, channel]);
        }
        if define(spec, "EPILOGUE") == 1 {
            for (j, e) in l.args[7..11].iter().enumerate().take_while(|(_, e)| **e != Arg::Null) {
                let strides = &i64s(&l.args[11])[5 * j..5 * j + 5];
                match define(spec, &format!("EXTRA_KIND{j}")) {
                    1 => assert!(r_map.base == *e && self.read(e).len() == y.len() && r_map.dims == y_map.dims, "the residual"),
                    2 => assert!(self.read(e).len() == m as usize && strides[4] == 1, "a row of channels"),
                    _ => {}
                }
            }
        }
        self.finish(spec, &l.args[7..], &mut y, &coords, &l.args[4], 4);
        assert_eq!(l.args[5], y_map.base);
        self.write(&y_map.base, y);
    }

    fn scatter(&mut self, to: &Arg, x: &[f64], at: &[i64]) {
        let mut y = vec![f64::NAN; x.len()];
        for (v, i) in x.iter().zip(at) {
            assert!(y[*i as usize].is_nan(), "element {i} is written twice");
            y[*i as usize] = *v;
        }
        self.write(to, y);
    }

    /// Any of the convolution kernels; sizes come as for `conv_nd.cuh`.
    #[expect(clippy::too_many_arguments, reason = "the fields of the kernels' parameter struct")]
    fn conv(
        &mut self,
        spec: &KernelSpec,
        l: &Launch,
        [n, c, k, groups]: [i64; 4],
        [input, out, filter, stride, pad, dil]: [[i64; 3]; 6],
        splits: i64,
        block_k: i64,
        transposed: bool,
    ) {
        let (x, w) = (self.read(&l.args[0]), self.read(&l.args[1]));
        let (cg, kg) = (c / groups, k / groups);
        let (n_in, n_out): (i64, i64) = (input.iter().product(), out.iter().product());
        let taps: i64 = filter.iter().product();
        let crs = cg * taps;
        let each = up(up(crs, block_k), splits) * block_k;
        let total = n * k * n_out;
        let order = spec.defines.iter().find(|(n, _)| n == "ORDER").map_or("ORDER_FIRST", |(_, v)| v.as_str());
        let (x_last, y_last) = (order == "ORDER_LAST", order != "ORDER_FIRST");
        let (mut y, mut at, mut coords) = (Vec::new(), Vec::new(), Vec::new());
        for i in 0..splits * total {
            let (split, i) = (i / total, i % total);
            let (image, channel, pixel) =
                if y_last { (i / k / n_out, i % k, i / k % n_out) } else { (i / n_out / k, i / n_out % k, i % n_out) };
            let o = [pixel / out[2] / out[1], pixel / out[2] % out[1], pixel % out[2]];
            let mut sum = 0.0;
            for kk in split * each..((split + 1) * each).min(crs) {
                let (cc, tap) = (kk / taps, kk % taps);
                let f = [tap / filter[2] / filter[1], tap / filter[2] % filter[1], tap % filter[2]];
                let mut source = [0; 3];
                let inside = (0..3).all(|d| {
                    if transposed {
                        let v = o[d] + pad[d] - f[d] * dil[d];
                        source[d] = v / stride[d];
                        v >= 0 && v % stride[d] == 0 && source[d] < input[d]
                    } else {
                        source[d] = o[d] * stride[d] - pad[d] + f[d] * dil[d];
                        (0..input[d]).contains(&source[d])
                    }
                });
                if !inside {
                    continue;
                }
                let from = channel / kg * cg + cc;
                let place = (source[0] * input[1] + source[1]) * input[2] + source[2];
                let xi = if x_last { (image * n_in + place) * c + from } else { (image * c + from) * n_in + place };
                let wi = match (transposed, x_last) {
                    (true, _) => (from * kg + channel % kg) * taps + tap,
                    (_, true) => (channel * taps + tap) * cg + cc,
                    _ => (channel * cg + cc) * taps + tap,
                };
                sum += x[xi as usize] * w[wi as usize];
            }
            y.push(sum);
            at.push(split * total + i);
            coords.push([image, channel, pixel, 0, 0]);
        }
        self.finish(spec, &l.args[5..], &mut y, &coords, &l.args[2], 1);
        self.scatter(&l.args[3], &y, &at);
    }

    fn plane_conv(&mut self, spec: &KernelSpec, l: &Launch) {
        let v = i32s(&l.args[4]);
        let [n, c, h, w, k, p, q, r, s, groups] = v[..10].try_into().unwrap();
        let [sh, sw, ph, pw, dh, dw] = v[10..16].try_into().unwrap();
        assert_eq!(v[16..22], [c / groups, k / groups, c * h * w, k * p * q, p * q, c / groups * r * s]);
        for (i, d) in [p * q, q, r * s, s].into_iter().enumerate() {
            check_magic(v[22 + 2 * i] as u32, v[23 + 2 * i] as u32, d);
        }
        for (name, size) in [("FILTER_H", r), ("FILTER_W", s)] {
            let baked = define(spec, name);
            assert!(baked == 0 || baked == size, "{name}");
        }
        let mut splits = 1;
        let mut block_k = 1;
        if spec.file == "conv_depthwise.cu" {
            assert!(c == groups, "depthwise");
            let items = p * up(q, define(spec, "OUTPUTS"));
            assert_eq!(l.grid[0] as i64, up(items, define(spec, "THREADS")));
            assert!(l.grid[1] as i64 * l.grid[2] as i64 >= n * k);
        } else {
            block_k = define(spec, "BLOCK_K");
            splits = l.grid[2] as i64 / groups;
            assert_eq!(l.grid[2] as i64 % groups, 0);
            assert_eq!(l.grid[0] as i64, up(n * p * q, define(spec, "BLOCK_N")));
            assert_eq!(l.grid[1] as i64, up(k / groups, define(spec, "BLOCK_M")));
            if spec.file == "conv_igemm_mma_sm80.cu" {
                assert!(define(spec, "ALIGNED") == 0 || v[21] % 8 == 0, "filters of whole vectors");
            }
        }
        let lists = [[1, h, w], [1, p, q], [1, r, s], [1, sh, sw], [0, ph, pw], [1, dh, dw]];
        self.conv(spec, l, [n, c, k, groups], lists, splits, block_k, false);
    }

    fn nd_conv(&mut self, spec: &KernelSpec, l: &Launch, transposed: bool) {
        let v = i64s(&l.args[4]);
        let list = |i: usize| <[i64; 3]>::try_from(&v[4 + 3 * i..7 + 3 * i]).unwrap();
        let lists = [list(0), list(1), list(2), list(3), list(4), list(5)];
        let (n_in, n_out): (i64, i64) = (lists[0].iter().product(), lists[1].iter().product());
        assert_eq!(v[22..24], [v[1] * n_in, v[2] * n_out]);
        self.conv(spec, l, v[..4].try_into().unwrap(), lists, 1, 1, transposed);
    }

    fn split_finish(&mut self, spec: &KernelSpec, l: &Launch) {
        let shape = i32s(&l.args[3]);
        for d in 0..5 {
            check_magic(shape[8 + d] as u32, shape[16 + d] as u32, shape[d]);
        }
        let total: i64 = shape[..5].iter().product();
        let Arg::I32(splits) = l.args[4] else { panic!("splits") };
        let part = self.read(&l.args[0]);
        assert_eq!(part.len() as i64, total * splits as i64, "parts");
        let mut x = vec![0.0; total as usize];
        part.chunks_exact(total as usize).for_each(|p| x.iter_mut().zip(p).for_each(|(x, p)| *x += p));
        let mut coords = Vec::new();
        for mut i in 0..total {
            let mut c = [0; 5];
            for d in (0..5).rev() {
                (c[d], i) = (i % shape[d], i / shape[d]);
            }
            coords.push(c);
        }
        self.finish(spec, &l.args[5..], &mut x, &coords, &l.args[1], define(spec, "BIAS_DIM") as usize);
        self.write(&l.args[2], x);
    }

    fn pool(&mut self, spec: &KernelSpec, l: &Launch) {
        let last = spec.file == "pool_nhwc.cu";
        let mut v = i64s(&l.args[if last { 2 } else { 3 }]);
        let channels = if last { v.remove(1) } else { 1 };
        if last {
            let vec = define(spec, "VEC");
            assert_eq!(channels % vec, 0, "whole vectors");
            let n_out: i64 = v[4..7].iter().product();
            assert!(l.grid[0] as i64 * define(spec, "THREADS") >= v[0] * n_out * channels / vec);
            v[0] *= channels;
        }
        let list = |i: usize| <[i64; 3]>::try_from(&v[1 + 3 * i..4 + 3 * i]).unwrap();
        let [input, out, window, stride, pad, pad_end, dil] = [0, 1, 2, 3, 4, 5, 6].map(list);
        let x = self.read(&l.args[0]);
        let kind = &spec.defines.iter().find(|(n, _)| n == "OP").unwrap().1;
        let Arg::F32(p) = l.args[if last { 3 } else { 4 }] else { panic!("p") };
        let (n_in, n_out): (i64, i64) = (input.iter().product(), out.iter().product());
        let (mut y, mut index) = (Vec::new(), Vec::new());
        for i in 0..v[0] * n_out {
            let (plane, pixel) = if last {
                (i / channels / n_out * channels + i % channels, i / channels % n_out)
            } else {
                (i / n_out, i % n_out)
            };
            let o = [pixel / out[2] / out[1], pixel / out[2] % out[1], pixel % out[2]];
            let (mut sum, mut best, mut at, mut seen, mut counted) = (0.0, f64::NEG_INFINITY, -1, 0.0, 0.0);
            for tap in 0..window.iter().product() {
                let f = [tap / window[2] / window[1], tap / window[2] % window[1], tap % window[2]];
                let s = [0, 1, 2].map(|d| o[d] * stride[d] - pad[d] + f[d] * dil[d]);
                counted += (0..3).all(|d| s[d] < input[d] + pad_end[d]) as i64 as f64;
                if !(0..3).all(|d| (0..input[d]).contains(&s[d])) {
                    continue;
                }
                let from = (s[0] * input[1] + s[1]) * input[2] + s[2];
                let e = x[if last {
                    (plane / channels * n_in + from) * channels + plane % channels
                } else {
                    plane * n_in + from
                } as usize];
                seen += 1.0;
                sum += if kind == "POOL_LP" { e.abs().powf(p as f64) } else { e };
                if e > best {
                    let inside = if !last && define(spec, "COLUMN_MAJOR") == 1 {
                        (s[2] * input[1] + s[1]) * input[0] + s[0]
                    } else {
                        (s[0] * input[1] + s[1]) * input[2] + s[2]
                    };
                    (best, at) = (e, plane * n_in + inside);
                }
            }
            y.push(match kind.as_str() {
                "POOL_MAX" => best,
                "POOL_LP" => sum.powf(1.0 / p as f64),
                _ => sum / f64::max(1.0, if v[22] == 1 { counted } else { seen }),
            });
            index.push(at as f64);
        }
        self.write(&l.args[1], y);
        if !last && define(spec, "HAS_INDEX") == 1 {
            self.write(&l.args[2], index);
        }
    }

    fn library(&mut self, g: &LibraryGemm) {
        let (a, b) = (self.read(&g.a), self.read(&g.b));
        let mut y = Vec::new();
        for i in 0..g.batch * g.m * g.n {
            let (batch, row, col) = (i / g.m / g.n, i / g.n % g.m, i % g.n);
            let sum: f64 = (0..g.k)
                .map(|k| {
                    let ai = batch * g.stride_a + if g.trans_a { k * g.m + row } else { row * g.k + k };
                    let bi = batch * g.stride_b + if g.trans_b { col * g.k + k } else { k * g.n + col };
                    a[ai as usize] * b[bi as usize]
                })
                .sum();
            let v = sum * g.alpha as f64 + g.bias.as_ref().map_or(0.0, |b| self.read(b)[col as usize]);
            y.push(if g.relu { v.max(0.0) } else { v });
        }
        assert!(g.stride_d == g.m * g.n || g.batch == 1);
        self.write(&g.d, y);
    }

    /// The pointwise kernel after a product; `bias_dims` when it adds the bias too.
    fn after(&mut self, l: &Launch, t: &Tactic, p: &Problem, first: usize) {
        let adds_bias = l.args.contains(&Arg::In(2)) && first > 2;
        let result = if l.args.contains(&Arg::Work(0)) { Arg::Work(0) } else { Arg::Out(0) };
        let out = &p.outputs[0].dims;
        let mut x = self.read(&result).to_vec();
        let n_plane: usize = out[2.min(out.len() - 1)..].iter().product();
        if adds_bias {
            // Only a convolution as a library product leaves its bias: one number a channel.
            assert!(t.name.starts_with("cublaslt"));
            let b = self.read(&Arg::In(2));
            let n = b.len();
            x.iter_mut().enumerate().for_each(|(i, x)| *x += b[i / n_plane % n]);
        }
        if let Some(program) = self.epilogue {
            let mut tensors = vec![Tensor::from_slice(out, &x).cast(program.inputs[0])];
            for j in 0..program.n_inputs() - 1 {
                let d = p.input(first + j).unwrap();
                assert!(l.args.contains(&Arg::In(first + j)), "operand {j} of the epilogue is not passed");
                tensors.push(Tensor::from_slice(&d.dims, self.read(&Arg::In(first + j))).cast(d.dtype));
            }
            let refs: Vec<Option<&Tensor>> = tensors.iter().map(Some).collect();
            let outputs = [Fact::new(program.output_dtype(0), out.as_slice())];
            let y = Pointwise { program: program.clone() }.eval(&EvalCx { inputs: &refs, outputs: &outputs }).unwrap();
            x = y[0].to_f64s();
        }
        self.write(&Arg::Out(0), x);
    }
}

/// Division by multiplication as `common/index.cuh` does it.
fn check_magic(magic: u32, shift: u32, d: i64) {
    let d = d.max(1) as u64;
    for n in [0, 1, d - 1, d, d + 1, 3 * d - 1, 12345, (1 << 31) - 1, (1 << 31) / d * d, ((1 << 31) / d * d).saturating_sub(1)] {
        let n = n.min((1 << 31) - 1);
        let q = (((n * magic as u64) >> 32) + n) >> shift;
        assert_eq!(q, n / d, "{n} / {d} by {magic}, {shift}");
    }
}

fn simulate(t: &Tactic, op: &Op, p: &Problem, dev: &DeviceProps, inputs: &[Option<Tensor>], epilogue: Option<&Program>) -> Vec<Vec<f64>> {
    let step = op.def().cuda_program(t, p, dev).unwrap_or_else(|e| panic!("{}: {e}", t.name));
    let mut m = Memory {
        inputs: inputs.iter().map(|t| t.as_ref().map(|t| t.to_f64s())).collect(),
        outputs: p.outputs.iter().map(|d| vec![f64::NAN; d.numel()]).collect(),
        work: HashMap::new(),
        epilogue,
    };
    for op in &step.ops {
        match op {
            DeviceOp::Gemm(g) => m.library(g),
            DeviceOp::Launch(l) => {
                let spec = &t.kernels[l.kernel];
                match spec.file.as_str() {
                    "gemm_simt.cu" | "gemm_mma_sm80.cu" | "gemm_skinny_sm80.cu" => m.gemm(spec, l),
                    "gemm_wgmma_sm90.cu" => m.wgmma(spec, l),
                    "conv_wgmma_sm90.cu" => m.conv_wgmma(spec, l),
                    "conv_igemm_simt.cu" | "conv_igemm_mma_sm80.cu" | "conv_depthwise.cu" => m.plane_conv(spec, l),
                    "conv_nhwc_depthwise.cu" | "conv_nhwc_depthwise_mma.cu" | "conv_nhwc_first.cu" | "conv_nhwc_mma.cu" => m.conv_nhwc(spec, l),
                    "conv_patches.cu" => m.patches(spec, l),
                    "conv_direct.cu" => m.nd_conv(spec, l, false),
                    "conv_transpose.cu" => m.nd_conv(spec, l, true),
                    "split_finish.cu" => m.split_finish(spec, l),
                    "pool.cu" | "pool_nhwc.cu" => m.pool(spec, l),
                    "pointwise.cu" => m.after(l, t, p, 3),
                    other => panic!("{other} has no simulation"),
                }
            }
            other => panic!("{other:?} has no simulation"),
        }
    }
    m.outputs
}

/// All tactics of a node against the reference; returns how many there were.
fn check(what: &str, op: &Op, inputs: &[Option<Tensor>], epilogue: Option<&Program>, dtype: DType, small_chip: bool) -> usize {
    let inputs: Vec<Option<Tensor>> = inputs.iter().map(|t| t.as_ref().map(|t| t.cast(dtype))).collect();
    let p = problem(op, &inputs, &[]).unwrap();
    if p.outputs[0].numel() == 0 {
        return 1;
    }
    let want = eval(op, &inputs).unwrap();
    let mut dev = DeviceProps::example_h200();
    if small_chip {
        dev.n_sm = 2;
    }
    let opt = TacticOptions { cublaslt: true, dynamic: true, ..TacticOptions::default() };
    let tactics = op.def().cuda_tactics(&p, &dev, &opt);
    // Results of half types are rounded here and there to neighbours.
    let tolerance = if dtype == DType::F16 || p.outputs[0].dtype == DType::F16 { 4e-3 } else { 1e-5 };
    for t in &tactics {
        let got = simulate(t, op, &p, &dev, &inputs, epilogue);
        for (g, w) in got.iter().zip(&want) {
            for (i, (g, w)) in g.iter().zip(w.to_f64s()).enumerate() {
                // A comparison may go either way for a sum that is nearly zero.
                let close = (g - w).abs() <= tolerance * w.abs().max(1.0) || *g == w;
                assert!(close, "{what}, {}: element {i}: expected {w}, got {g}", t.name);
            }
        }
    }
    tactics.len()
}

fn check_all(name: &str, with: &dyn Fn(Option<Program>) -> Op, inputs: &[Option<Tensor>]) {
    for dtype in [DType::F32, DType::F16] {
        // More batch dimensions than a product takes are copied together first, which is no launch of a product.
        if name == "four batch dimensions" {
            continue;
        }
        assert!(check(name, &with(None), inputs, None, dtype, true) > 0);
        let out = infer(&with(None), inputs).unwrap()[0].shape.concrete().unwrap();
        for (kind, program, shapes) in conv::epilogues(&out) {
            // Comparisons jump, and one type is enough for conversions.
            if kind == "to bool" || (kind == "to f16" && dtype == DType::F16) {
                continue;
            }
            let program = Program::parse(&program.to_string().replace("f32", dtype.name())).unwrap();
            let mut inputs = inputs.to_vec();
            inputs.extend(shapes.iter().enumerate().map(|(i, s)| Some(random(DType::F32, s, 20 + i as u64))));
            check(&format!("{name} with {kind}, {dtype}"), &with(Some(program.clone())), &inputs, Some(&program), dtype, false);
        }
    }
}

#[test]
fn convolutions() {
    for c in conv::cases() {
        let with = |e| Op::from(Conv { epilogue: e, ..c.op.clone() });
        check_all(c.name, &with, &conv::operands(&c, true));
    }
}

#[test]
fn transposed_convolutions() {
    for c in conv_transpose::cases() {
        let with = |e| {
            let mut op = c.op.clone();
            op.epilogue = e;
            Op::from(op)
        };
        check_all(c.name, &with, &conv_transpose::operands(&c, true));
    }
}

#[test]
fn products() {
    for c in matmul::cases() {
        let with = |e| Op::from(MatMul { epilogue: e, ..c.op.clone() });
        check_all(c.name, &with, &matmul::operands(&c, true));
    }
}

#[test]
fn pools() {
    for c in pool::cases() {
        let n = check(c.name, &Op::from(c.op.clone()), &[Some(random(DType::F32, &c.x, 1))], None, DType::F32, false);
        assert!(n > 0, "{}", c.name);
    }
}
