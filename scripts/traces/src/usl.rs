//! The Universal Scalability Law (Gunther): what N members get done together,
//! `X(N) = λN / (1 + σ(N-1) + κN(N-1))`. λ is what one does alone, σ the share in which they wait for
//! each other, κ what keeping each pair of them consistent takes.
//!
//! The law is linear in `N/X = (1 + σ(N-1) + κN(N-1))/λ`, and so it is fitted by least squares of the
//! relative error, with σ and κ not below 0. The confidence intervals come from a bootstrap of the
//! residuals: 1,000 fits, the same in every run.

/// Fits of the bootstrap.
const RESAMPLES: usize = 1000;
/// The share of them that an interval holds.
const CONFIDENCE: f64 = 0.95;
/// Numbers of members that it takes, one more than there are parameters.
pub const LEAST_POINTS: usize = 4;

/// The law's parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Law {
    /// Throughput of one member.
    pub lambda: f64,
    /// Contention, 0: none.
    pub sigma: f64,
    /// Coherence, 0: none.
    pub kappa: f64,
}

/// A law with what is known of it.
#[derive(Clone, Debug)]
pub struct Fit {
    /// The law.
    pub law: Law,
    /// 95 % intervals of λ, σ and κ.
    pub intervals: [(f64, f64); 3],
}

impl Law {
    /// Throughput of so many members.
    pub fn at(&self, members: f64) -> f64 {
        let others = members - 1.0;
        self.lambda * members / (1.0 + self.sigma * others + self.kappa * members * others)
    }

    /// Members at which throughput is highest; `None`: it grows on and on.
    pub fn peak(&self) -> Option<f64> {
        let at = ((1.0 - self.sigma).max(0.0) / self.kappa).sqrt();
        (self.kappa > 0.0 && at.is_finite()).then_some(at.max(1.0))
    }
}

/// The law that comes nearest to points of members and throughput; `None` where they are too few
/// to tell.
pub fn fit(points: &[(f64, f64)]) -> Option<Fit> {
    let mut members: Vec<f64> = points.iter().map(|point| point.0).collect();
    members.sort_unstable_by(f64::total_cmp);
    members.dedup();
    let is_sound = |point: &(f64, f64)| point.0 >= 1.0 && point.1 > 0.0 && point.1.is_finite();
    if members.len() < LEAST_POINTS || !points.iter().all(is_sound) {
        return None;
    }
    let law = least_squares(points)?;
    // Residuals of so few points are smaller than the errors were.
    let (count, parameters) = (points.len() as f64, 3.0);
    let wider = (count / (count - parameters)).sqrt();
    let residuals: Vec<f64> = points
        .iter()
        .map(|(members, throughput)| (throughput / law.at(*members) - 1.0) * wider)
        .collect();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut found: [Vec<f64>; 3] = Default::default();
    for _ in 0..RESAMPLES {
        let resampled: Vec<(f64, f64)> = points
            .iter()
            .map(|(members, _)| {
                // xorshift64: the same residuals in every run.
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let residual = residuals[(random % residuals.len() as u64) as usize];
                (*members, law.at(*members) * (1.0 + residual).max(1e-3))
            })
            .collect();
        if let Some(law) = least_squares(&resampled) {
            for (all, value) in found.iter_mut().zip([law.lambda, law.sigma, law.kappa]) {
                all.push(value);
            }
        }
    }
    let intervals = found.map(|mut all| {
        all.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
        let outside = (1.0 - CONFIDENCE) / 2.0;
        match all.is_empty() {
            true => (f64::NAN, f64::NAN),
            false => (at(outside), at(1.0 - outside)),
        }
    });
    Some(Fit { law, intervals })
}

/// Tries all parameters, then without κ, without σ, without both: the nearest of those that are
/// not below 0.
fn least_squares(points: &[(f64, f64)]) -> Option<Law> {
    let all = [[true, true], [true, false], [false, true], [false, false]];
    let laws = all.into_iter().filter_map(|with| solved(points, with));
    laws.filter(|(_, law)| law.lambda > 0.0 && law.sigma >= 0.0 && law.kappa >= 0.0)
        .min_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, law)| law)
}

/// The sum of squares with the law, of those parameters alone.
fn solved(points: &[(f64, f64)], with: [bool; 2]) -> Option<(f64, Law)> {
    // Each point says 1 = (X/N)(a + b(N-1) + cN(N-1)), with a = 1/λ, b = σ/λ, c = κ/λ.
    let row = |point: &(f64, f64)| {
        let (members, throughput) = *point;
        let share = throughput / members;
        let (sigma, kappa) = (f64::from(u8::from(with[0])), f64::from(u8::from(with[1])));
        [
            share,
            share * (members - 1.0) * sigma,
            share * members * (members - 1.0) * kappa,
        ]
    };
    let rows: Vec<[f64; 3]> = points.iter().map(row).collect();
    // Columns are brought to one size, for the sake of the digits.
    let scale: [f64; 3] = std::array::from_fn(|column| {
        let most = rows.iter().map(|row| row[column].abs()).fold(0.0, f64::max);
        if most > 0.0 { most } else { 1.0 }
    });
    let mut system = [[0.0; 4]; 3];
    for row in &rows {
        for (down, line) in system.iter_mut().enumerate() {
            for (across, sum) in line.iter_mut().take(3).enumerate() {
                *sum += row[down] / scale[down] * row[across] / scale[across];
            }
            line[3] += row[down] / scale[down];
        }
    }
    for (column, line) in system.iter_mut().enumerate().skip(1) {
        if !with[column - 1] {
            *line = [0.0; 4];
            line[column] = 1.0;
        }
    }
    let solution = gauss(system)?;
    let [a, b, c]: [f64; 3] = std::array::from_fn(|index| solution[index] / scale[index]);
    let squares = rows
        .iter()
        .map(|row| (row[0] * a + row[1] * b + row[2] * c - 1.0).powi(2))
        .sum();
    let law = Law {
        lambda: 1.0 / a,
        sigma: b / a,
        kappa: c / a,
    };
    law.lambda.is_finite().then_some((squares, law))
}

/// Solves three equations; `None` where they do not determine the three unknowns.
fn gauss(mut system: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    for column in 0..3 {
        let pivot = (column..3).max_by(|one, other| {
            system[*one][column]
                .abs()
                .total_cmp(&system[*other][column].abs())
        })?;
        system.swap(column, pivot);
        let top = system[column];
        if top[column].abs() < 1e-14 {
            return None;
        }
        for (index, line) in system.iter_mut().enumerate() {
            if index != column {
                let factor = line[column] / top[column];
                for (value, above) in line.iter_mut().zip(top) {
                    *value -= factor * above;
                }
            }
        }
    }
    Some(std::array::from_fn(|index| {
        system[index][3] / system[index][index]
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUTH: Law = Law {
        lambda: 120.0,
        sigma: 0.05,
        kappa: 0.002,
    };

    fn points(law: Law, error: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        let all = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
        all.map(|members| (members, law.at(members) * (1.0 + error(members))))
            .to_vec()
    }

    fn is_near(found: f64, expected: f64, by: f64) -> bool {
        (found - expected).abs() <= by
    }

    #[test]
    fn finds_the_law_that_made_the_points() {
        let fit = fit(&points(TRUTH, |_| 0.0)).unwrap();
        assert!(is_near(fit.law.lambda, 120.0, 1e-6), "{fit:?}");
        assert!(is_near(fit.law.sigma, 0.05, 1e-8), "{fit:?}");
        assert!(is_near(fit.law.kappa, 0.002, 1e-9), "{fit:?}");
        assert!(is_near(
            fit.law.peak().unwrap(),
            (0.95f64 / 0.002).sqrt(),
            1e-3
        ));
        for (least, most) in fit.intervals {
            assert!(most - least < 1e-4, "{fit:?}");
        }
    }

    #[test]
    fn the_intervals_hold_the_truth_when_there_is_noise() {
        let noise = |members: f64| 0.03 * (members * 7.3).sin();
        let fit = fit(&points(TRUTH, noise)).unwrap();
        let truth = [TRUTH.lambda, TRUTH.sigma, TRUTH.kappa];
        for ((least, most), truth) in fit.intervals.into_iter().zip(truth) {
            assert!(least < truth && truth < most, "{truth}: {fit:?}");
            assert!(most > least);
        }
        assert_eq!(
            fit.intervals,
            super::fit(&points(TRUTH, noise)).unwrap().intervals
        );
    }

    #[test]
    fn no_parameter_is_below_zero() {
        // Better than linear: no law of the kind, so the nearest is the linear one.
        let all: Vec<_> = [1.0, 2.0, 4.0, 8.0]
            .map(|members: f64| (members, members.powf(1.2)))
            .to_vec();
        let law = fit(&all).unwrap().law;
        assert_eq!((law.sigma, law.kappa, law.peak()), (0.0, 0.0, None));
        // A plateau: contention alone, without a peak.
        let flat = Law {
            lambda: 10.0,
            sigma: 0.5,
            kappa: 0.0,
        };
        let law = fit(&points(flat, |_| 0.0)).unwrap().law;
        assert!(is_near(law.sigma, 0.5, 1e-6) && law.kappa < 1e-9, "{law:?}");
    }

    #[test]
    fn too_few_points_and_nonsense_give_no_law() {
        assert!(fit(&[]).is_none());
        assert!(fit(&[(1.0, 1.0), (2.0, 2.0), (4.0, 3.0)]).is_none());
        assert!(fit(&[(2.0, 1.0); 9]).is_none());
        assert!(fit(&[(1.0, 1.0), (2.0, 0.0), (4.0, 3.0), (8.0, 4.0)]).is_none());
    }
}
