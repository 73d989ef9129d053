//! The simulation's part for convolutions with channels last (`conv_nhwc_*.cu`).

use super::{Memory, check_magic, define, i32s, up};
use sinter::ops::{KernelSpec, Launch};

/// A convolution as the arguments of its launch say it.
struct Last {
    n: i64,
    /// Channels and sizes of x, planes in front where `x_first`.
    x: [i64; 3],
    m: i64,
    out: [i64; 2],
    filter: [i64; 2],
    stride: [i64; 2],
    pad: [i64; 2],
    dilation: [i64; 2],
    /// Groups of blocks, and how many of the convolution's each is.
    groups: i64,
    joined: i64,
    x_first: bool,
}

impl Memory<'_> {
    pub(super) fn conv_nhwc(&mut self, spec: &KernelSpec, l: &Launch) {
        let v = i32s(&l.args[4]);
        let magics = |at: usize, divisors: &[i64]| {
            assert_eq!(v.len(), at + 2 * divisors.len(), "parameters");
            for (i, d) in divisors.iter().enumerate() {
                check_magic(v[at + 2 * i] as u32, v[at + 2 * i + 1] as u32, *d);
            }
        };
        let d = |name: &str| define(spec, name);
        let mut splits = 1;
        let conv = match spec.file.as_str() {
            "conv_nhwc_depthwise.cu" | "conv_nhwc_depthwise_mma.cu" => {
                let [h, w, c, p, q, pad_h, pad_w, items, per_image, across] = v[..10].try_into().unwrap();
                magics(10, &[per_image, across]);
                assert_eq!([per_image, across], [up(p, d("ROWS")) * up(q, d("COLUMNS")), up(q, d("COLUMNS"))]);
                let mma = spec.file == "conv_nhwc_depthwise_mma.cu";
                let (vec, threads) = if mma { (8, 32 * d("WARPS")) } else { (d("VEC"), d("THREADS")) };
                assert_eq!([items % per_image, c % vec, l.block[0] as i64], [0, 0, threads]);
                assert_eq!(l.grid[0] as i64, up(c / vec, d("LANES")));
                assert_eq!(l.grid[1] as i64, up(items, threads / d("LANES")).min(65_535));
                Last {
                    n: items / per_image,
                    x: [c, h, w],
                    m: c,
                    out: [p, q],
                    filter: [d("FILTER_H"), d("FILTER_W")],
                    stride: [d("STRIDE_H"), d("STRIDE_W")],
                    pad: [pad_h, pad_w],
                    dilation: [d("DIL_H"), d("DIL_W")],
                    groups: c,
                    joined: 1,
                    x_first: false,
                }
            }
            "conv_nhwc_first.cu" => {
                let [n, h, w, m, p, q, pad_h, pad_w, shift, lead, tiles, down, across] = v[..13].try_into().unwrap();
                magics(13, &[down * across, across]);
                assert_eq!([down, across, tiles], [up(p, d("TILE_H")), up(q, 16 * d("TILE_Q")), n * down * across]);
                assert_eq!([shift, lead, m % d("VEC_Y")], [(8 - pad_w % 8) % 8, pad_w % 2, 0]);
                assert!(d("FILTER_W") + lead <= d("TAP_PITCH"));
                assert!(l.grid[0] as i64 <= tiles && l.grid[1] as i64 == up(m, d("BLOCK_N")));
                let steps = up(d("PLANES") * d("FILTER_H") * d("TAP_PITCH"), 16);
                let rows = d("PLANES") * ((d("TILE_H") - 1) * d("STRIDE_H") + (d("FILTER_H") - 1) * d("DIL_H") + 1);
                let pitch = up((16 * d("TILE_Q") - 1) * d("STRIDE_W") + d("TAP_PITCH") + 6, 8) * 8;
                let bytes = 2 * (d("BLOCK_N") * (16 * steps + 8) + 2 * rows * pitch) + 64 * d("WARPS") * (d("WARP_N") + 8);
                assert_eq!(l.smem as i64, bytes, "shared memory");
                Last {
                    n,
                    x: [d("PLANES"), h, w],
                    m,
                    out: [p, q],
                    filter: [d("FILTER_H"), d("FILTER_W")],
                    stride: [d("STRIDE_H"), d("STRIDE_W")],
                    pad: [pad_h, pad_w],
                    dilation: [d("DIL_H"), 1],
                    groups: 1,
                    joined: 1,
                    x_first: true,
                }
            }
            _ => {
                let [n, h, w, c, m, p, q, groups, c_group, m_group, c_single, m_single] = v[..12].try_into().unwrap();
                let [k_total, taps, s, sh, sw, ph, pw, dh, dw, pixels, blocks_n] = v[12..23].try_into().unwrap();
                let x_first = d("X_FIRST") == 1;
                let inner = if x_first { taps } else { c_group };
                magics(23, &[p * q, q, inner, s, blocks_n, groups, c_single, m_single]);
                let joined = c_group / c_single;
                assert_eq!([c_group * groups, m_group * groups, k_total, pixels], [c, m, c_group * taps, n * p * q]);
                assert_eq!([m_group, blocks_n], [m_single * joined, up(m_group, d("BLOCK_N"))]);
                assert!(joined == 1 || d("JOINED") == 1);
                let of_b = if joined > 1 { c_single } else { k_total };
                assert_eq!([of_b % d("VEC_B"), m_group % d("VEC_Y")], [0, 0], "whole vectors");
                let of_a = if x_first { vec![s, w, sw, pw] } else { vec![c_group] };
                assert!(of_a.iter().all(|n| n % d("VEC_A") == 0) && (!x_first || dw == 1 || d("VEC_A") == 1), "whole vectors");
                assert_eq!(l.grid[0] as i64, blocks_n * groups * up(pixels, d("BLOCK_M")));
                splits = l.grid[1] as i64;
                Last {
                    n,
                    x: [c, h, w],
                    m,
                    out: [p, q],
                    filter: [taps / s, s],
                    stride: [sh, sw],
                    pad: [ph, pw],
                    dilation: [dh, dw],
                    groups,
                    joined,
                    x_first,
                }
            }
        };
        let block_k = if splits > 1 { d("BLOCK_K") } else { 1 };
        self.sums(spec, l, &conv, splits, block_k);
    }

    pub(super) fn patches(&mut self, spec: &KernelSpec, l: &Launch) {
        let v = i32s(&l.args[2]);
        let [pieces, c, h, w, p, q, r, s, across, across_patch] = v[..10].try_into().unwrap();
        for (i, d) in [across, across_patch, r, p, c].into_iter().enumerate() {
            check_magic(v[10 + 2 * i] as u32, v[11 + 2 * i] as u32, d);
        }
        let vec = define(spec, "VEC");
        assert_eq!([across * vec, across_patch * vec, s % vec, w % vec], [q * s, s, 0, 0]);
        let n = pieces / (c * p * r * across);
        let x = self.read(&l.args[0]);
        let mut y = Vec::new();
        for i in 0..n * p * q * c * r * s {
            let (fs, fr, channel) = (i % s, i / s % r, i / s / r % c);
            let patch = i / s / r / c;
            let (oq, op, image) = (patch % q, patch / q % p, patch / q / p);
            y.push(x[(((image * c + channel) * h + op * r + fr) * w + oq * s + fs) as usize]);
        }
        self.write(&l.args[1], y);
    }

    fn sums(&mut self, spec: &KernelSpec, l: &Launch, v: &Last, splits: i64, block_k: i64) {
        let [c, h, w] = v.x;
        let [r, s] = v.filter;
        let (cg, mg) = (c / v.groups, v.m / v.groups);
        let (c_single, m_single) = (cg / v.joined, mg / v.joined);
        let k_total = cg * r * s;
        let each = up(up(k_total, block_k), splits) * block_k;
        let (x, filters) = (self.read(&l.args[0]), self.read(&l.args[1]));
        let (mut y, mut coords) = (Vec::new(), Vec::new());
        for split in 0..splits {
            for i in 0..v.n * v.out[0] * v.out[1] * v.m {
                let (channel, pixel) = (i % v.m, i / v.m % (v.out[0] * v.out[1]));
                let image = i / v.m / (v.out[0] * v.out[1]);
                let (oh, ow) = (pixel / v.out[1], pixel % v.out[1]);
                let group = channel / mg;
                let mut sum = 0.0;
                for k in split * each..((split + 1) * each).min(k_total) {
                    let (tap, of_group) = if v.x_first { (k % (r * s), k / (r * s)) } else { (k / cg, k % cg) };
                    if of_group / c_single != channel % mg / m_single {
                        continue;
                    }
                    let (fr, fs, of_single) = (tap / s, tap % s, of_group % c_single);
                    let ih = oh * v.stride[0] - v.pad[0] + fr * v.dilation[0];
                    let iw = ow * v.stride[1] - v.pad[1] + fs * v.dilation[1];
                    if !(0..h).contains(&ih) || !(0..w).contains(&iw) {
                        continue;
                    }
                    let from = group * cg + of_group;
                    let (at, f) = match v.x_first {
                        true => (((image * c + from) * h + ih) * w + iw, (channel * c_single + of_single) * r * s + tap),
                        false => (((image * h + ih) * w + iw) * c + from, (channel * r * s + tap) * c_single + of_single),
                    };
                    sum += x[at as usize] * filters[f as usize];
                }
                y.push(sum);
                coords.push([image, channel, pixel, 0, 0]);
            }
        }
        self.finish(spec, &l.args[5..], &mut y, &coords, &l.args[2], 1);
        self.write(&l.args[3], y);
    }
}
