//! Preparing features: Scaler, Normalizer, Imputer, Binarizer, OneHotEncoder, FeatureVectorizer.

use super::*;

/// Numbers for each feature, or one for all; `default` where the attribute is absent.
fn per_feature(cx: &mut ImportCx<'_>, name: &str, x: ValueId, default: f32) -> Result<ValueId> {
    let v = cx.attrs.floats(name)?.filter(|v| !v.is_empty()).unwrap_or_else(|| vec![default]);
    let fits = v.len() == 1 || n_features(cx, x).is_none_or(|f| f == v.len());
    ensure!(fits, InvalidArgument, "{} numbers in {name} for an operand of shape {}", v.len(), cx.shape(x));
    ensure!(v.len() == 1 || cx.shape(x).rank() <= 2, Unsupported, "{name} with features of a tensor of shape {}", cx.shape(x));
    Ok(cx.constant(Tensor::from_slice(&[v.len()], &v)))
}

/// (x - offset) * scale.
pub(super) fn scaler(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let x = cast(cx, x, DType::F32)?;
    let offset = per_feature(cx, "offset", x, 0.0)?;
    let scale = per_feature(cx, "scale", x, 1.0)?;
    let shifted = call(cx, "Sub", &[x, offset])?;
    Ok(vec![call(cx, "Mul", &[shifted, scale])?])
}

/// Each row over its maximum, its sum of sizes or its length; rows of zeros stay.
pub(super) fn normalizer(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let norm = cx.string("norm", "MAX")?;
    let op = match norm.as_str() {
        "MAX" => "ReduceMax",
        "L1" => "ReduceL1",
        "L2" => "ReduceL2",
        _ => bail!(Unsupported, "norm {norm:?} is not known"),
    };
    let x = cx.input(0)?;
    let rank = cx.shape(x).rank();
    ensure!(rank == 1 || rank == 2, Unsupported, "expected rows of features, got shape {}", cx.shape(x));
    let x = cast(cx, x, DType::F32)?;
    let mut a = Attrs::new();
    a.set("axes", &vec![rank as i64 - 1]);
    a.set("keepdims", &1i64);
    let norm = cx.call1(op, 11, &a, &[x])?;
    let y = pointwise(cx, &[x, norm], |p| {
        let zero = p.push_const(0.0, DType::F32)?;
        let is_zero = p.push(Func::Equal, &[1, zero])?;
        let share = p.push(Func::Div, &[0, 1])?;
        p.push(Func::Select, &[is_zero, 0, share])
    })?;
    Ok(vec![y])
}

/// Replaces one value (NaN too) in each feature.
pub(super) fn imputer(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let dtype = cx.fact(x).dtype;
    let floats = cx.attrs.floats("imputed_value_floats")?.unwrap_or_default();
    let ints = cx.ints("imputed_value_int64s")?.unwrap_or_default();
    let (float, int) = (cx.float("replaced_value_float", 0.0)?, cx.int("replaced_value_int64", 0)?);
    let (values, replaced) = match dtype.is_float() {
        true => (Tensor::from_slice(&[floats.len()], &floats).cast(dtype), Tensor::scalar(float).cast(dtype)),
        false => (Tensor::from_slice(&[ints.len()], &ints).cast(dtype), Tensor::scalar(int).cast(dtype)),
    };
    ensure!(values.numel() > 0, InvalidArgument, "there are no values of {dtype} to put in place of others");
    let fits = n_features(cx, x).is_none_or(|n| n == values.numel()) && cx.shape(x).rank() <= 2;
    // As many values as features (when their number is not known yet, it has to turn out so), or the first for all.
    let values = if fits { values } else { Tensor::from_bytes(dtype, &[1], &values.bytes()[..dtype.size()])? };
    let (is_nan, values) = (dtype.is_float() && float.is_nan(), cx.constant(values));
    let found = if is_nan {
        pointwise(cx, &[x], |p| p.push(Func::IsNan, &[0]))?
    } else {
        let replaced = cx.constant(replaced);
        call(cx, "Equal", &[x, replaced])?
    };
    Ok(vec![call(cx, "Where", &[found, values, x])?])
}

/// 1 above the threshold, else 0.
pub(super) fn binarizer(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let threshold = cx.float("threshold", 0.0)?;
    let x = cx.input(0)?;
    let dtype = cx.fact(x).dtype;
    let y = pointwise(cx, &[x], |p| {
        // Integers are compared as real numbers: half a step is not lost.
        let wide = if dtype.is_float() { dtype } else { DType::F64 };
        let value = if wide == dtype { 0 } else { p.push_cast(0, wide)? };
        let t = p.push_const(threshold as f64, wide)?;
        let above = p.push(Func::Greater, &[value, t])?;
        p.push_cast(above, dtype)
    })?;
    Ok(vec![y])
}

/// A number for each category, 1 where x is it. Numbers that are no category give zeros, with `zeros` = 0 as well, where a
/// device cannot fail.
pub(super) fn one_hot(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    cx.flag("zeros", true)?;
    let strings = cx.attrs.strings("cats_strings")?.unwrap_or_default();
    ensure!(strings.is_empty(), Unsupported, "categories that are strings are not supported: give them integers");
    let cats = cx.ints("cats_int64s")?.unwrap_or_default();
    ensure!(!cats.is_empty(), InvalidArgument, "attribute cats_int64s is missing");
    let x = cx.input(0)?;
    let x = cast(cx, x, DType::I64)?;
    let spec = vec![cx.shape(x).rank() as i64];
    let x = cx.add(Reshape { mode: ReshapeMode::Unsqueeze, spec: Some(spec), allow_zero: false }, &[x])?;
    // Of equal categories the last counts.
    let last = |i: usize| !cats[i + 1..].contains(&cats[i]);
    let mask: Vec<f64> = (0..cats.len()).map(|i| last(i) as i64 as f64).collect();
    let table = cx.constant(Tensor::from_slice(&[cats.len()], &cats));
    let same = call(cx, "Equal", &[x, table])?;
    let y = cast(cx, same, DType::F32)?;
    if mask.iter().all(|m| *m == 1.0) {
        return Ok(vec![y]);
    }
    let mask = constant(cx, DType::F32, &[mask.len()], &mask);
    Ok(vec![call(cx, "Mul", &[y, mask])?])
}

/// The first numbers of each operand's rows side by side; short rows are filled with zeros.
pub(super) fn vectorizer(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let widths = cx.ints("inputdimensions")?.unwrap_or_default();
    let n = cx.inputs.len();
    ensure!(widths.len() == n && n > 0, InvalidArgument, "{} inputdimensions for {n} operands", widths.len());
    let mut parts = Vec::new();
    for (i, want) in widths.into_iter().enumerate() {
        ensure!((0..=1 << 30).contains(&want), InvalidArgument, "inputdimensions: {want}");
        let x = cx.input(i)?;
        let mut x = cast(cx, x, DType::F32)?;
        match cx.shape(x).rank() {
            1 => x = cx.add(Reshape { mode: ReshapeMode::Unsqueeze, spec: Some(vec![0]), allow_zero: false }, &[x])?,
            2 => {}
            0 => bail!(Unsupported, "operand {i} is a scalar"),
            _ => x = cx.call1("Flatten", OPSET, &attrs(&[("axis", 1)]), &[x])?,
        }
        // Where the width is not known, zeros for all of it are put behind, and cut off.
        let width = n_features(cx, x).map(|w| w as i64);
        if width.is_none_or(|w| w < want) {
            let pads = cx.constant(Tensor::from_slice(&[4], &[0i64, 0, 0, want - width.unwrap_or(0)]));
            x = call(cx, "Pad", &[x, pads])?;
        }
        if width.is_none_or(|w| w > want) {
            x = columns(cx, x, 0, want)?;
        }
        parts.push(x);
    }
    if parts.len() == 1 { Ok(parts) } else { Ok(vec![join(cx, &parts)?]) }
}
