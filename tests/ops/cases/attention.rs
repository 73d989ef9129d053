//! Attention, rotary embedding, cache updates and linear attention: forms of operands, masks, positions, odd and empty
//! sizes, every floating-point type.

use super::{Case, ints};
use crate::ops::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::attention::{Attention, Causal, Output, Packed, Scores};
use sinter::ops::cache_update::CacheUpdate;
use sinter::ops::linear_attention::LinearAttention;
use sinter::ops::rotary::Rotary;

fn tolerance(d: DType) -> f64 {
    match d {
        DType::BF16 => 1e-2,
        DType::F16 => 2e-3,
        _ => 1e-5,
    }
}

const FLOATS: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::F64];

/// Batch, heads of q and of k and v, queries, keys, sizes of heads.
type Sizes = [usize; 7];

/// q, k and v, of rank 4 or 3.
fn qkv(d: DType, [b, h, n, s, t, e, f]: Sizes, packed: bool) -> Vec<Option<Tensor>> {
    let shapes = match packed {
        false => [vec![b, h, s, e], vec![b, n, t, e], vec![b, n, t, f]],
        true => [vec![b, s, h * e], vec![b, t, n * e], vec![b, t, n * f]],
    };
    shapes.iter().zip(1..).map(|(shape, seed)| Some(random(d, shape, seed))).collect()
}

/// A mask that leaves about two thirds of the keys, and nothing at all to some queries.
fn bools(shape: &[usize]) -> Option<Tensor> {
    let n: usize = shape.iter().product();
    let v: Vec<bool> = (0..n).map(|i| (i * 7919 / 13) % 3 != 0).collect();
    Some(Tensor::from_slice(shape, &v))
}

fn attention(out: &mut Vec<Case>) {
    let packed = |op: Attention, s: &Sizes| Attention { q_heads: s[1] as i64, kv_heads: s[2] as i64, ..op };
    let sizes: [Sizes; 9] = [
        [2, 3, 3, 5, 7, 8, 8],
        [1, 6, 2, 37, 41, 17, 33],
        [2, 4, 1, 1, 70, 64, 64],
        [1, 2, 2, 65, 130, 40, 72],
        [1, 1, 1, 3, 3, 300, 270],
        [2, 2, 2, 9, 0, 8, 8],
        [2, 2, 1, 0, 9, 8, 8],
        [0, 2, 2, 4, 4, 8, 8],
        [1, 2, 2, 12, 5, 0, 3],
    ];
    for s in sizes {
        for d in FLOATS {
            let op = Attention { causal: Causal::Exclude, ..Attention::plain() };
            out.push(Case::new(format!("plain {d}{s:?}"), Attention::plain(), qkv(d, s, false)).within(tolerance(d)));
            out.push(Case::new(format!("causal {d}{s:?}"), packed(op, &s), qkv(d, s, true)).within(tolerance(d)));
        }
        let [b, h, _, n, t, ..] = s;
        let masks: [(&str, Vec<usize>); 6] = [
            ("full", vec![b, h, n, t]),
            ("batch", vec![b, 1, n, t]),
            ("heads", vec![h, 1, t]),
            ("keys", vec![t]),
            ("queries", vec![n, 1]),
            ("one", vec![]),
        ];
        for (name, shape) in masks {
            for (causal, window) in [(Causal::No, 0), (Causal::Exclude, 3), (Causal::Lowest, 0)] {
                let op = Attention { causal, window, softcap: 2.5, scale: Some(0.4), ..Attention::plain() };
                for is_bool in [false, true] {
                    let mut inputs = qkv(DType::F32, s, true);
                    inputs.push(if is_bool { bools(&shape) } else { Some(random(DType::F32, &shape, 9)) });
                    let name = format!("mask {name} bool {is_bool} {} {window} {s:?}", causal.name());
                    out.push(Case::new(name, packed(op.clone(), &s), inputs).within(1e-5));
                }
            }
        }
        let short = t.div_ceil(2);
        let mut inputs = qkv(DType::F16, s, false);
        inputs.push(Some(random(DType::F16, &[n, short], 9)));
        let op = Attention { pad_mask: true, ..Attention::plain() };
        out.push(Case::new(format!("short mask {s:?}"), op, inputs).within(tolerance(DType::F16)));
        let mut inputs = qkv(DType::F16, s, false);
        inputs.push(Some(random(DType::F32, &[n, t], 9)));
        out.push(Case::new(format!("f32 mask {s:?}"), Attention::plain(), inputs).within(tolerance(DType::F16)));
        // Lengths and offsets of both types, sinks, and offsets that leave nothing to the first queries.
        let lengths: Vec<i64> = (0..b as i64).map(|i| (t as i64 + 1) / (i + 1)).collect();
        let offsets: Vec<i32> = (0..b as i32).map(|i| 3 - 5 * i).collect();
        for (causal, window) in [(Causal::No, 4), (Causal::Exclude, 0), (Causal::Exclude, 2)] {
            let op = Attention { causal, window, ..Attention::plain() };
            let mut inputs = qkv(DType::F32, s, false);
            inputs.extend([None, ints(&lengths), Some(Tensor::from_slice(&[b], &offsets)), Some(random(DType::F32, &[h], 5))]);
            let name = format!("lengths, offsets, sinks {} {window} {s:?}", causal.name());
            out.push(Case::new(name, op.clone(), inputs).within(1e-5));
            let mut inputs = qkv(DType::F32, s, true);
            let lengths: Vec<i32> = lengths.iter().map(|n| *n as i32).collect();
            inputs.extend([None, Some(Tensor::from_slice(&[b], &lengths)), ints(&[2])]);
            let op = packed(Attention { smooth: true, ..op }, &s);
            out.push(Case::new(format!("one offset, smooth {} {window} {s:?}", causal.name()), op, inputs).within(1e-5));
        }
        for scores in Scores::ALL {
            for d in FLOATS {
                let op = Attention { scores: *scores, softcap: 1.5, causal: Causal::Exclude, ..Attention::plain() };
                let mut inputs = qkv(d, s, false);
                inputs.push(Some(random(d, &[b, 1, n, t], 9)));
                let name = format!("scores {} {d}{s:?}", scores.name());
                out.push(Case::new(name, op, inputs).within(tolerance(d)));
            }
        }
    }
}

/// Operands side by side in one, and outputs in either form.
fn side_by_side(out: &mut Vec<Case>) {
    let sizes: [Sizes; 4] =
        [[2, 3, 3, 5, 5, 8, 8], [1, 4, 2, 37, 37, 24, 24], [2, 4, 1, 1, 1, 64, 64], [1, 2, 2, 70, 70, 32, 32]];
    for [b, h, n, s, _, e, _] in sizes {
        for d in FLOATS {
            for output in Output::ALL {
                let op = Attention { q_heads: h as i64, kv_heads: n as i64, output: *output, ..Attention::plain() };
                let name = format!("{} {d}{:?}", output.name(), [b, h, n, s, e]);
                let qkv = Attention { packed: Packed::Qkv, causal: Causal::Exclude, ..op.clone() };
                let x = Some(random(d, &[b, s, (h + 2 * n) * e], 1));
                out.push(Case::new(format!("packed {name}"), qkv.clone(), vec![x.clone()]).within(tolerance(d)));
                let mask = Some(random(DType::F32, &[b, 1, 1, s], 9));
                let masked = Attention { causal: Causal::No, ..qkv };
                out.push(Case::new(format!("packed, masked {name}"), masked, vec![x, None, None, mask]).within(tolerance(d)));
                let kv = Attention { packed: Packed::Kv, ..op.clone() };
                let q3 = Some(random(d, &[b, s, h * e], 1));
                let q4 = Some(random(d, &[b, h, s, e], 1));
                let x = Some(random(d, &[b, s + 3, 2 * n * e], 2));
                out.push(Case::new(format!("packed keys {name}"), kv.clone(), vec![q3, x.clone()]).within(tolerance(d)));
                out.push(Case::new(format!("packed keys, q by heads {name}"), kv, vec![q4, x]).within(tolerance(d)));
                let operands = vec![
                    Some(random(d, &[b, h, s, e], 1)),
                    Some(random(d, &[b, s, n * e], 2)),
                    Some(random(d, &[b, n, s, e], 3)),
                ];
                out.push(Case::new(format!("mixed forms {name}"), op, operands).within(tolerance(d)));
            }
        }
    }
}

/// Sizes at the edges of the tiles of tensor cores, with all that scores go through.
fn tiles(out: &mut Vec<Case>) {
    let sizes: [Sizes; 10] = [
        [1, 1, 1, 128, 128, 64, 64],
        [1, 2, 1, 129, 200, 80, 80],
        [1, 1, 1, 33, 65, 96, 96],
        [1, 1, 1, 64, 257, 128, 128],
        [2, 4, 2, 1, 520, 128, 128],
        [1, 8, 1, 2, 300, 64, 40],
        [3, 3, 3, 49, 49, 32, 32],
        [1, 1, 1, 16, 31, 48, 8],
        [1, 1, 1, 20, 70, 256, 256],
        [1, 1, 1, 197, 197, 64, 64],
    ];
    for s in sizes {
        let [b, h, n, len, t, ..] = s;
        for d in [DType::F16, DType::BF16] {
            for rows in [false, true] {
                let op = Attention { q_heads: h as i64, kv_heads: n as i64, ..Attention::plain() };
                let mut add = |what: &str, op: Attention, more: Vec<Option<Tensor>>| {
                    let mut inputs = qkv(d, s, rows);
                    inputs.extend(more);
                    out.push(Case::new(format!("{what} {d} rows {rows} {s:?}"), op, inputs).within(tolerance(d)));
                };
                add("tiles", op.clone(), vec![]);
                let causal = Attention { causal: Causal::Exclude, window: 40, ..op.clone() };
                let lengths: Vec<i64> = (0..b as i64).map(|i| t as i64 - 3 * i).collect();
                add("window", causal.clone(), vec![None, ints(&lengths), ints(&[(t - len.min(t)) as i64])]);
                add("sinks", Attention { window: 0, ..causal }, vec![None, None, None, Some(random(d, &[h], 7))]);
                add("cap", Attention { softcap: 1.5, scale: Some(0.5), ..op.clone() }, vec![]);
                let lowest = Attention { causal: Causal::Lowest, ..op.clone() };
                add("lowest", lowest.clone(), vec![]);
                add("lowest, masked", lowest, vec![bools(&[b, 1, 1, t])]);
                for (name, shape) in [("keys", vec![b, 1, 1, t]), ("full", vec![h, len, t]), ("queries", vec![len, 1])] {
                    add(&format!("bools of {name}"), op.clone(), vec![bools(&shape)]);
                    add(&format!("mask of {name}"), op.clone(), vec![Some(random(d, &shape, 9))]);
                    let least: Vec<f32> = (0..shape.iter().product()).map(|i| if i % 3 == 0 { f32::MIN } else { 0.0 }).collect();
                    add(&format!("least of {name}"), op.clone(), vec![Some(Tensor::from_slice(&shape, &least))]);
                }
                add("all least", op, vec![Some(Tensor::from_slice(&[1], &[f32::MIN]))]);
            }
        }
    }
}

/// So many heads that persistent blocks take several tiles, of which some end early.
fn many_tiles(out: &mut Vec<Case>) {
    let sizes: [Sizes; 4] =
        [[3, 24, 24, 130, 70, 64, 64], [2, 14, 7, 70, 150, 64, 64], [2, 12, 12, 49, 300, 128, 128], [1, 150, 75, 66, 40, 128, 128]];
    for s in sizes {
        let [b, h, n, len, t, ..] = s;
        for d in [DType::F16, DType::BF16] {
            let op = Attention { q_heads: h as i64, kv_heads: n as i64, ..Attention::plain() };
            let mut add = |what: &str, op: Attention, rows: bool, more: Vec<Option<Tensor>>| {
                let mut inputs = qkv(d, s, rows);
                inputs.extend(more);
                out.push(Case::new(format!("{what} {d} {s:?}"), op, inputs).within(tolerance(d)));
            };
            add("many tiles", op.clone(), true, vec![Some(random(DType::F32, &[b, 1, 1, t], 9))]);
            // The first queries of the last entry see no key.
            let offsets: Vec<i32> = (0..b as i32).map(|i| 5 - 75 * i).collect();
            let causal = Attention { causal: Causal::Exclude, ..op.clone() };
            add("many tiles, causal", causal, false, vec![None, None, Some(Tensor::from_slice(&[b], &offsets)), Some(random(d, &[h], 7))]);
            add("many tiles, bools", op, true, vec![bools(&[1, 1, len, t])]);
        }
        let op = Attention { q_heads: h as i64, kv_heads: n as i64, packed: Packed::Qkv, ..Attention::plain() };
        let x = Some(random(DType::F16, &[b, len, (h + 2 * n) * s[5]], 1));
        out.push(Case::new(format!("many tiles, packed {s:?}"), op, vec![x]).within(tolerance(DType::F16)));
    }
}

fn rotary(out: &mut Vec<Case>) {
    for d in FLOATS {
        for interleaved in [false, true] {
            for (b, s, h, e, dim) in [(2, 3, 4, 8, 0), (1, 5, 3, 10, 6), (3, 1, 1, 2, 0), (2, 0, 2, 4, 0), (1, 2, 2, 5, 0), (2, 3, 2, 6, 2)] {
                let dim = if dim == 0 { e & !1 } else { dim };
                let half = dim / 2;
                let ids: Vec<i64> = (0..b * s).map(|i| (i * 5 % 11) as i64).collect();
                let ids32: Vec<i32> = ids.iter().map(|i| *i as i32).collect();
                let table = |seed| Some(random(d, &[11, half], seed));
                let rows = |seed| Some(random(d, &[b, s, half], seed));
                let x4 = Some(random(d, &[b, h, s, e], 1));
                let x3 = Some(random(d, &[b, s, h * e], 1));
                let op = Rotary { interleaved, heads: h as i64, dim: dim as i64 };
                let name = format!("{d} interleaved {interleaved} {b} {s} {h} {e} {dim}");
                let t = tolerance(d);
                let at = Some(Tensor::from_slice(&[b, s], &ids));
                let at32 = Some(Tensor::from_slice(&[b, s], &ids32));
                let cases = [
                    ("rank 4 by position", vec![x4.clone(), table(2), table(3), at]),
                    ("rank 3 by position", vec![x3.clone(), table(2), table(3), at32]),
                    ("rank 4 by row", vec![x4, rows(2), rows(3)]),
                    ("rank 3 from a position", vec![x3, table(2), table(3), ints(&[4])]),
                ];
                out.extend(cases.map(|(what, inputs)| Case::new(format!("{what} {name}"), op.clone(), inputs).within(t)));
            }
        }
    }
}

fn cache(out: &mut Vec<Case>) {
    for d in [DType::F32, DType::F16, DType::U8, DType::F64] {
        for (past, new, total, starts) in [(5, 2, 7, [5, 3]), (9, 1, 4, [3, 0]), (0, 4, 4, [0, 0]), (4, 3, 6, [-1, 5]), (0, 0, 0, [0, 0]), (3, 0, 3, [3, 2])] {
            for size in [5, 8] {
                let op = CacheUpdate { heads: 3 };
                let p = (past > 0).then(|| random(d, &[2, 3, past, size], 1));
                let name = format!("{d} {past}+{new} of {total} at {starts:?} of {size}");
                let total = Some(Tensor::scalar(total as i32));
                let wide = ints(&starts);
                let narrow = Some(Tensor::from_slice(&[2], &starts.map(|s| s as i32)));
                let rank4 = Some(random(d, &[2, 3, new, size], 2));
                let rank3 = Some(random(d, &[2, new, 3 * size], 2));
                out.push(Case::new(format!("rank 4 {name}"), op.clone(), vec![p.clone(), rank4, wide, total.clone()]));
                out.push(Case::new(format!("rank 3 {name}"), op.clone(), vec![p.clone(), rank3.clone(), narrow, total.clone()]));
                out.push(Case::new(format!("one start {name}"), op, vec![p, rank3, ints(&starts[..1]), total]));
            }
        }
    }
}

fn linear(out: &mut Vec<Case>) {
    for d in FLOATS {
        for [b, s, qh, kvh, e, f] in [[2, 5, 4, 2, 6, 3], [1, 1, 1, 1, 40, 7], [2, 3, 2, 4, 1, 5], [1, 0, 2, 2, 4, 4], [2, 2, 3, 3, 0, 4], [1, 4, 2, 1, 33, 1]] {
            for rule in 0..6 {
                // Small numbers, so that states neither grow nor cancel.
                let t = |shape: &[usize], seed, by: f64| {
                    let v: Vec<f64> = random(DType::F32, shape, seed).to_f64s().iter().map(|v| v * by).collect();
                    Some(Tensor::from_slice(shape, &v).cast(d))
                };
                let width = if rule % 2 == 0 { kvh } else { kvh * e };
                let mut inputs = vec![t(&[b, s, qh * e], 1, 0.3), t(&[b, s, kvh * e], 2, 0.3), t(&[b, s, kvh * f], 3, 0.5)];
                inputs.push(if rule >= 3 { t(&[b, kvh, e, f], 4, 0.5) } else { None });
                inputs.push(if rule % 3 == 0 { None } else { t(&[b, s, width], 5, 0.1) });
                inputs.push(if rule % 3 == 1 { None } else { t(&[b, s, if rule < 3 { 1 } else { kvh }], 6, 0.5) });
                let op = LinearAttention { q_heads: qh as i64, kv_heads: kvh as i64, scale: if rule == 2 { 0.7 } else { 0.0 } };
                let name = format!("linear {d} {:?} rule {rule}", [b, s, qh, kvh, e, f]);
                out.push(Case::new(name, op, inputs).within(tolerance(d)));
            }
        }
    }
}

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    attention(&mut out);
    side_by_side(&mut out);
    tiles(&mut out);
    many_tiles(&mut out);
    rotary(&mut out);
    cache(&mut out);
    linear(&mut out);
    out
}
