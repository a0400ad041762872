//! The kernels. Each is prepared and checked by the root alone, against a reference that it computes
//! in another way, and run by all members together.
//!
//! | kernel             | problem                                              | reference              |
//! |--------------------|------------------------------------------------------|------------------------|
//! | conjugate gradient | five-point Laplacian on a 16 × 16 grid, without a matrix | the solution that the right side was made from |
//! | FFT                | 256 complex numbers, Stockham's order                | Cooley and Tukey's, bits reversed first |
//! | integer sort       | 8,192 keys below 1,024, by counting, as NAS IS       | the keys, sorted       |
//!
//! Programs here are compiled without the processor's floating point (the target has none), so the
//! first two are integer work as well: routines that compute with floating-point numbers.

use crate::compute::World;
use alloc::vec::Vec;
use core::f64::consts::PI;

/// A kernel.
pub struct Work {
    pub name: &'static str,
    /// Lays out the problem.
    pub prepare: fn(&World),
    /// Solves it, with all others.
    pub run: fn(&mut World),
    /// Compares.
    pub check: fn(&World) -> Result<(), &'static str>,
}

pub const KERNELS: &[Work] = &[
    Work {
        name: "conjugate gradient",
        prepare: prepare_gradient,
        run: gradient,
        check: check_gradient,
    },
    Work {
        name: "FFT",
        prepare: prepare_transform,
        run: transform,
        check: check_transform,
    },
    Work {
        name: "integer sort",
        prepare: prepare_sort,
        run: sort,
        check: check_sort,
    },
];

/// Points of a side of the grid, and of it all.
const SIDE: usize = 16;
const POINTS: usize = SIDE * SIDE;
/// Numbers that are transformed.
const LENGTH: usize = 256;
/// Keys that are sorted, and what they are below.
const KEYS: usize = 8192;
const BELOW: usize = 1024;

// Where the arrays are.
const SOLUTION: usize = 0;
const RESIDUAL: usize = SOLUTION + POINTS;
const DIRECTION: usize = RESIDUAL + POINTS;
const IMAGE: usize = DIRECTION + POINTS;
const NUMBERS: usize = IMAGE + POINTS;
const SORTING: usize = NUMBERS + 4 * LENGTH;
const SORTED: usize = SORTING + KEYS;
const STARTS: usize = SORTED + KEYS;
const HISTOGRAMS: usize = STARTS + BELOW;

/// Words that so many members need.
pub fn data_words(members: usize) -> usize {
    HISTOGRAMS + members * BELOW
}

/// Numbers that look random, the same in each run.
fn random(seed: u64) -> impl Iterator<Item = u64> {
    core::iter::successors(Some(seed), |last| {
        let next = last.wrapping_mul(6_364_136_223_846_793_005);
        Some(next.wrapping_add(1_442_695_040_888_963_407))
    })
    .skip(1)
    .map(|state| state >> 33)
}

/// The same from -1 to 1.
fn random_reals(seed: u64) -> impl Iterator<Item = f64> {
    random(seed).map(|value| value as f64 / f64::from(1 << 30) - 1.0)
}

/// Four times a point, less its neighbours; beyond the border there is 0.
fn laplacian(at: usize, point: impl Fn(usize) -> f64) -> f64 {
    let (row, column) = (at / SIDE, at % SIDE);
    let neighbours = [
        (row > 0).then(|| at - SIDE),
        (row + 1 < SIDE).then(|| at + SIDE),
        (column > 0).then(|| at - 1),
        (column + 1 < SIDE).then(|| at + 1),
    ];
    let around: f64 = neighbours.into_iter().flatten().map(&point).sum();
    4.0 * point(at) - around
}

fn exact_solution() -> Vec<f64> {
    random_reals(1).take(POINTS).collect()
}

fn prepare_gradient(world: &World) {
    let exact = exact_solution();
    for at in 0..POINTS {
        let right = laplacian(at, |point| exact[point]);
        world.set_real(SOLUTION + at, 0.0);
        world.set_real(RESIDUAL + at, right);
        world.set_real(DIRECTION + at, right);
    }
}

fn gradient(world: &mut World) {
    const MOST: usize = 4 * SIDE;
    const SMALL: f64 = 1e-24;
    let part = world.part(POINTS);
    let square = |world: &World, at: usize| world.real(at) * world.real(at);
    let own = part.clone().map(|at| square(world, RESIDUAL + at)).sum();
    let mut norm = world.sum(own);
    for _ in 0..MOST {
        if norm < SMALL {
            break;
        }
        let mut own = 0.0;
        for at in part.clone() {
            let image = laplacian(at, |point| world.real(DIRECTION + point));
            world.set_real(IMAGE + at, image);
            own += image * world.real(DIRECTION + at);
        }
        let step = norm / world.sum(own);
        let mut own = 0.0;
        for at in part.clone() {
            let solution = world.real(SOLUTION + at) + step * world.real(DIRECTION + at);
            let residual = world.real(RESIDUAL + at) - step * world.real(IMAGE + at);
            world.set_real(SOLUTION + at, solution);
            world.set_real(RESIDUAL + at, residual);
            own += residual * residual;
        }
        let next = world.sum(own);
        for at in part.clone() {
            let direction = world.real(RESIDUAL + at) + next / norm * world.real(DIRECTION + at);
            world.set_real(DIRECTION + at, direction);
        }
        norm = next;
        // Others need this member's part of the direction.
        world.barrier();
    }
}

fn check_gradient(world: &World) -> Result<(), &'static str> {
    let exact = exact_solution();
    let error = |at: usize| (world.real(SOLUTION + at) - exact[at]).abs();
    match (0..POINTS).all(|at| error(at) < 1e-9) {
        true => Ok(()),
        false => Err("not the solution"),
    }
}

/// Where the real or imaginary part of a number is, in one of two arrays.
fn number(array: usize, at: usize) -> usize {
    NUMBERS + array * 2 * LENGTH + 2 * at
}

fn inputs() -> Vec<(f64, f64)> {
    let reals: Vec<f64> = random_reals(2).take(2 * LENGTH).collect();
    reals.chunks(2).map(|pair| (pair[0], pair[1])).collect()
}

fn prepare_transform(world: &World) {
    for (at, (real, imaginary)) in inputs().into_iter().enumerate() {
        world.set_real(number(0, at), real);
        world.set_real(number(0, at) + 1, imaginary);
    }
}

/// The root of unity to a power.
fn twiddle(power: usize, of: usize) -> (f64, f64) {
    let (sin, cos) = libm::sincos(-2.0 * PI * power as f64 / of as f64);
    (cos, sin)
}

fn times((a, b): (f64, f64), (c, d): (f64, f64)) -> (f64, f64) {
    (a * c - b * d, a * d + b * c)
}

fn transform(world: &mut World) {
    let get = |world: &World, at: usize| (world.real(at), world.real(at + 1));
    let set = |world: &World, at: usize, (real, imaginary): (f64, f64)| {
        world.set_real(at, real);
        world.set_real(at + 1, imaginary);
    };
    let (mut from, mut to) = (0, 1);
    // So many transforms of this length are interleaved.
    let (mut length, mut stride) = (LENGTH, 1);
    while length > 1 {
        let half = length / 2;
        for butterfly in world.part(LENGTH / 2) {
            let (p, q) = (butterfly / stride, butterfly % stride);
            let a = get(world, number(from, q + stride * p));
            let b = get(world, number(from, q + stride * (p + half)));
            let difference = times((a.0 - b.0, a.1 - b.1), twiddle(p, length));
            set(
                world,
                number(to, q + stride * 2 * p),
                (a.0 + b.0, a.1 + b.1),
            );
            set(world, number(to, q + stride * (2 * p + 1)), difference);
        }
        world.barrier();
        (from, to) = (to, from);
        (length, stride) = (half, stride * 2);
    }
}

/// The array that the last stage wrote to.
const RESULT: usize = LENGTH.trailing_zeros() as usize % 2;

fn check_transform(world: &World) -> Result<(), &'static str> {
    let inputs = inputs();
    let bits = LENGTH.trailing_zeros();
    let reversed = |at: usize| (at as u32).reverse_bits() >> (32 - bits);
    let mut numbers: Vec<(f64, f64)> = (0..LENGTH)
        .map(|at| inputs[reversed(at) as usize])
        .collect();
    let mut length = 2;
    while length <= LENGTH {
        for block in numbers.chunks_mut(length) {
            let (low, high) = block.split_at_mut(length / 2);
            for (power, (a, b)) in low.iter_mut().zip(high).enumerate() {
                let turned = times(*b, twiddle(power, length));
                (*a, *b) = (
                    (a.0 + turned.0, a.1 + turned.1),
                    (a.0 - turned.0, a.1 - turned.1),
                );
            }
        }
        length *= 2;
    }
    let is_close = |at: usize| {
        let (real, imaginary) = numbers[at];
        let place = number(RESULT, at);
        (world.real(place) - real).abs() < 1e-9 && (world.real(place + 1) - imaginary).abs() < 1e-9
    };
    match (0..LENGTH).all(is_close) {
        true => Ok(()),
        false => Err("not the transform"),
    }
}

fn keys() -> impl Iterator<Item = u64> {
    random(3).take(KEYS).map(|value| value % BELOW as u64)
}

fn prepare_sort(world: &World) {
    for (at, key) in keys().enumerate() {
        world.set(SORTING + at, key);
        world.set(SORTED + at, u64::MAX);
    }
}

fn sort(world: &mut World) {
    let own = HISTOGRAMS + world.rank * BELOW;
    for key in 0..BELOW {
        world.set(own + key, 0);
    }
    for at in world.part(KEYS) {
        let place = own + world.get(SORTING + at) as usize;
        world.set(place, world.get(place) + 1);
    }
    world.barrier();
    // Where the keys of each member begin among those that are equal, and how many there are of each.
    for key in world.part(BELOW) {
        let mut all = 0;
        for member in 0..world.members {
            let place = HISTOGRAMS + member * BELOW + key;
            let count = world.get(place);
            world.set(place, all);
            all += count;
        }
        world.set(STARTS + key, all);
    }
    world.barrier();
    if world.rank == 0 {
        let mut start = 0;
        for key in 0..BELOW {
            let count = world.get(STARTS + key);
            world.set(STARTS + key, start);
            start += count;
        }
    }
    world.barrier();
    for at in world.part(KEYS) {
        let key = world.get(SORTING + at);
        let place = own + key as usize;
        let before = world.get(place);
        world.set(place, before + 1);
        let start = world.get(STARTS + key as usize);
        world.set(SORTED + (start + before) as usize, key);
    }
}

fn check_sort(world: &World) -> Result<(), &'static str> {
    let mut expected: Vec<u64> = keys().collect();
    expected.sort_unstable();
    match (0..KEYS).all(|at| world.get(SORTED + at) == expected[at]) {
        true => Ok(()),
        false => Err("not the keys in order"),
    }
}
