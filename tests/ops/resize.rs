//! Resize and Upsample: import forms against numbers of the ONNX reference, and symbolic shapes.

use super::node::{counting, expect, node};
use sinter::base::{DType, Dim, Fact, Shape, Tensor};
use sinter::network::Graph;

fn image() -> Option<Tensor> {
    Some(Tensor::from_slice(&[1, 1, 4, 4], &counting(16, 1.0)))
}

fn floats(v: &[f32]) -> Option<Tensor> {
    Some(Tensor::from_slice(&[v.len()], v))
}

fn ints(v: &[i64]) -> Option<Tensor> {
    Some(Tensor::from_slice(&[v.len()], v))
}

#[test]
fn cubic_by_sizes() {
    let y = node("Resize", 13).string("mode", "cubic").run(&[image(), None, None, ints(&[1, 1, 3, 5])]).unwrap();
    let want = [
        1.44388, 2.11538, 3.00463, 3.89388, 4.56539, 6.93925, 7.61075, 8.5, 9.38925, 10.06075, 12.43462, 13.10613,
        13.99537, 14.88463, 15.55613,
    ];
    expect(&y[0], &[1, 1, 3, 5], &want, 1e-5);
}

#[test]
fn cubic_without_what_lies_outside() {
    let n = node("Resize", 11).string("mode", "cubic").int("exclude_outside", 1).float("cubic_coeff_a", -0.5);
    let y = n.run(&[image(), None, floats(&[1.0, 1.0, 1.25, 0.75])]).unwrap();
    let want = [
        0.92977, 2.32692, 3.72408, 3.69519, 5.09234, 6.4895, 7.10284, 8.5, 9.89716, 10.5105, 11.90766, 13.30481,
        13.27592, 14.67308, 16.07023,
    ];
    expect(&y[0], &[1, 1, 5, 3], &want, 1e-5);
}

#[test]
fn antialias_widens_the_filter() {
    let n = node("Resize", 18).string("mode", "linear").int("antialias", 1);
    let y = n.run(&[image(), None, floats(&[1.0, 1.0, 0.6, 0.6])]).unwrap();
    expect(&y[0], &[1, 1, 2, 2], &[2.875, 4.5, 9.375, 11.0], 1e-5);
}

#[test]
fn crop_and_resize_extrapolates() {
    let n = node("Resize", 19)
        .string("mode", "linear")
        .string("coordinate_transformation_mode", "tf_crop_and_resize")
        .float("extrapolation_value", 10.0);
    let roi = floats(&[0.0, 0.0, 0.4, 0.6, 1.0, 1.0, 1.2, 1.7]);
    let y = n.run(&[image(), roi, None, ints(&[1, 1, 3, 3])]).unwrap();
    expect(&y[0], &[1, 1, 3, 3], &[7.6, 10.0, 10.0, 12.4, 10.0, 10.0, 10.0, 10.0, 10.0], 1e-5);
}

#[test]
fn nearest_rounding_up_and_symmetric_pixels() {
    let n = node("Resize", 19).string("nearest_mode", "ceil");
    let y = n.run(&[image(), None, None, ints(&[1, 1, 5, 3])]).unwrap();
    let want = [2., 3., 4., 6., 7., 8., 10., 11., 12., 14., 15., 16., 14., 15., 16.];
    expect(&y[0], &[1, 1, 5, 3], &want, 0.0);
    let n = node("Resize", 19).string("mode", "linear").string("coordinate_transformation_mode", "half_pixel_symmetric");
    let y = n.run(&[image(), None, floats(&[1.0, 1.0, 2.3, 0.6])]).unwrap();
    let want = [
        1.66667, 3.33333, 2.44928, 4.11594, 4.18841, 5.85507, 5.92754, 7.5942, 7.66667, 9.33333, 9.4058, 11.07246,
        11.14493, 12.81159, 12.88406, 14.55072, 13.66667, 15.33333,
    ];
    expect(&y[0], &[1, 1, 9, 2], &want, 1e-5);
}

#[test]
fn axes_and_aspect_ratio() {
    let n = node("Resize", 18)
        .string("mode", "linear")
        .ints("axes", &[3, 2])
        .string("keep_aspect_ratio_policy", "not_larger");
    let y = n.run(&[image(), None, None, ints(&[6, 3])]).unwrap();
    let want = [1.83333, 3.16667, 4.5, 7.16667, 8.5, 9.83333, 12.5, 13.83333, 15.16667];
    expect(&y[0], &[1, 1, 3, 3], &want, 1e-5);
}

#[test]
fn forms_before_opset_11() {
    let x = Some(Tensor::from_slice(&[1, 1, 2, 2], &[1.0f32, 2.0, 3.0, 4.0]));
    let want = [1., 1., 2., 2., 1., 1., 2., 2., 3., 3., 4., 4., 3., 3., 4., 4.];
    let y = node("Upsample", 7).floats("scales", &[1.0, 1.0, 2.0, 2.0]).run(&[x.clone()]).unwrap();
    expect(&y[0], &[1, 1, 4, 4], &want, 0.0);
    let scales = floats(&[1.0, 1.0, 2.0, 2.0]);
    expect(&node("Upsample", 9).run(&[x.clone(), scales.clone()]).unwrap()[0], &[1, 1, 4, 4], &want, 0.0);
    expect(&node("Resize", 10).run(&[x, scales]).unwrap()[0], &[1, 1, 4, 4], &want, 0.0);
    // Shrinking took the upper neighbour: columns 0 and ceil(1 / 0.6) = 2.
    let y = node("Resize", 10).run(&[image(), floats(&[1.0, 1.0, 0.6, 0.6])]).unwrap();
    expect(&y[0], &[1, 1, 2, 2], &[1., 3., 9., 11.], 0.0);
}

#[test]
fn a_symbolic_size_is_scaled_as_an_expression() {
    let mut g = Graph::new("g");
    let h = Dim::sym("h");
    let shape = Shape(vec![1.into(), 3.into(), h.clone(), &h * 2]);
    let x = g.add_input("x", Fact::new(DType::F32, shape)).unwrap();
    let scales = g.add_const("s", std::sync::Arc::new(floats(&[1.0, 1.0, 2.0, 0.5]).unwrap()));
    let y = node("Resize", 13).import(&mut g, &[Some(x), None, Some(scales)]).unwrap();
    assert_eq!(g.fact(y[0]).shape, Shape(vec![1.into(), 3.into(), &h * 2, h]));
}

#[test]
fn contradictions_are_refused() {
    let both = node("Resize", 13).run(&[image(), None, floats(&[1.0; 4]), ints(&[1, 1, 4, 4])]);
    assert!(both.unwrap_err().to_string().contains("either scales or sizes"));
    assert!(node("Resize", 13).run(&[image()]).is_err());
    assert!(node("Resize", 13).run(&[image(), None, floats(&[1.0, 1.0, 0.0, 1.0])]).is_err());
    assert!(node("Resize", 13).string("mode", "magic").run(&[image(), None, floats(&[1.0; 4])]).is_err());
}
