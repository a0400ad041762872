//! What came out: result lines for programs, and a table with targets for people.

use crate::placement::{FAR_BELOW_NS, NEAR_BELOW_NS, Placement, SAME_CORE_BELOW_NS};
use crate::rounds::{Operation, Results, median};
use crate::subject::{Class, Subject};
use std::fmt::Write;

/// Rounds that a figure needs in its placement, at least.
const LEAST_ROUNDS: usize = 10;

/// The most instructions that sending and receiving 56 bytes are to take.
const INSTRUCTIONS: f64 = 60.0;

/// Who a subject is, once its ends have gone to their threads.
pub struct Who {
    title: String,
    class: Class,
    /// What result lines say of it.
    keys: String,
}

impl Who {
    /// Of a subject.
    pub fn of(subject: &Subject) -> Self {
        let mut keys = format!("\"subject\":\"{}\"", subject.name);
        if let Some(slots) = subject.slots {
            let _ = write!(keys, ",\"slots\":{slots}");
        }
        if let Some(version) = subject.version() {
            let _ = write!(keys, ",\"version\":\"{version}\"");
        }
        Self {
            title: subject.title(),
            class: subject.class,
            keys,
        }
    }
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::RoundTrip => "round trip",
            Self::Streaming => "streaming, a message",
        }
    }
}

/// What is expected where: near and far.
struct Target {
    of: Class,
    operation: Operation,
    to: To,
    /// The most that the ratio of times may be. A rate that is 1.8 times another's takes 1/1.8 of
    /// its time.
    most: [f64; 2],
}

/// What a subject is compared with, in the same rounds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Floor,
    BestCrate,
}

const TARGETS: [Target; 4] = [
    Target {
        of: Class::Channel,
        operation: Operation::RoundTrip,
        to: To::Floor,
        most: [1.25, 1.08],
    },
    Target {
        of: Class::Channel,
        operation: Operation::RoundTrip,
        to: To::BestCrate,
        most: [0.8, 0.8],
    },
    Target {
        of: Class::Channel,
        operation: Operation::Streaming,
        to: To::BestCrate,
        most: [1.0 / 1.8, 1.0 / 1.6],
    },
    Target {
        of: Class::CallLine,
        operation: Operation::RoundTrip,
        to: To::Floor,
        most: [0.75, 0.55],
    },
];

/// Result lines and tables about `results`.
pub fn of(results: &Results, who: &[Who]) -> String {
    let mut text = String::new();
    let mut table = String::new();
    probes(&mut text, results);
    for placement in Placement::ALL {
        figures(&mut text, &mut table, results, who, placement);
    }
    let mut verdicts = String::new();
    for (place, placement) in [Placement::Near, Placement::Far].into_iter().enumerate() {
        for target in &TARGETS {
            verdict(
                &mut text,
                &mut verdicts,
                results,
                who,
                placement,
                target,
                place,
            );
        }
    }
    let kept = results.rounds.iter().flatten().flatten().count();
    let visits = results.rounds.iter().flatten().count();
    let _ = writeln!(
        text,
        "{} rounds; {kept} of {visits} visits kept: before and after them the two CPUs were in the \
         same placement.\n\
         A compare-exchange round trip tells it: same core below {SAME_CORE_BELOW_NS} ns, near below \
         {NEAR_BELOW_NS} ns, far below {FAR_BELOW_NS} ns.\n\
         All but pipe, eventfd and futex poll by try_send and try_recv (or push and pop) with a \
         spin_loop between; messages are 56 bytes, and every word is checked.",
        results.rounds.len()
    );
    text + &table + &verdicts
}

/// The round trips by which placements were told.
fn probes(text: &mut String, results: &Results) {
    for placement in Placement::ALL {
        let probes = results.probes.iter().copied();
        let mut probes: Vec<f64> = probes
            .filter(|ns| Placement::told_by(*ns) == Some(placement))
            .collect();
        if !probes.is_empty() {
            let spread = spread(&mut probes);
            let _ = writeln!(
                text,
                "result {{\"benchmark\":\"host\",\"operation\":\"compare-exchange round trip\",\
                 \"unit\":\"ns\",{spread},\"placement\":\"{placement}\"}}"
            );
        }
    }
}

/// Keys and values of samples, of which there is at least one.
fn spread(samples: &mut [f64]) -> String {
    let median = median(samples);
    let p99 = samples[(samples.len() * 99).div_ceil(100) - 1];
    format!(
        "\"minimum\":{:.1},\"median\":{median:.1},\"p99\":{p99:.1},\"samples\":{}",
        samples[0],
        samples.len()
    )
}

/// The times that a job took as multiples of another's, in rounds in which both were in this
/// placement.
fn ratios(results: &Results, job: usize, other: usize, placement: Placement) -> Vec<f64> {
    let time = |round: &[Option<crate::rounds::Visit>], job: usize| {
        let visit = round[job]
            .as_ref()
            .filter(|visit| visit.placement == placement);
        visit.map(|visit| visit.median)
    };
    let rounds = results.rounds.iter();
    rounds
        .filter_map(|round| Some(time(round, job)? / time(round, other)?))
        .collect()
}

/// The medians of a job's visits in this placement.
fn visits(results: &Results, job: usize, placement: Placement) -> Vec<f64> {
    let visits = results
        .rounds
        .iter()
        .filter_map(|round| round[job].as_ref());
    visits
        .filter(|visit| visit.placement == placement)
        .map(|visit| visit.median)
        .collect()
}

fn samples(results: &Results, job: usize, placement: Placement) -> Vec<f64> {
    let visits = results
        .rounds
        .iter()
        .filter_map(|round| round[job].as_ref());
    let visits = visits.filter(|visit| visit.placement == placement);
    visits
        .flat_map(|visit| visit.samples.iter().copied())
        .collect()
}

/// The job whose median time is the least among the crates', and was told often enough.
fn best_crate(
    results: &Results,
    who: &[Who],
    operation: Operation,
    placement: Placement,
) -> Option<usize> {
    let jobs = 0..results.jobs.len();
    let crates = jobs.filter(|job| {
        let job = results.jobs[*job];
        job.operation == operation && who[job.subject].class == Class::Crate
    });
    let times = crates.filter_map(|job| {
        let mut visits = visits(results, job, placement);
        (visits.len() >= LEAST_ROUNDS).then(|| (median(&mut visits), job))
    });
    times.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, job)| job)
}

fn floor(results: &Results, who: &[Who]) -> usize {
    let is_floor = |job: &crate::rounds::Job| who[job.subject].class == Class::Floor;
    results
        .jobs
        .iter()
        .position(is_floor)
        .expect("the floor is always measured")
}

/// A line and a row a figure of this placement.
fn figures(
    text: &mut String,
    table: &mut String,
    results: &Results,
    who: &[Who],
    placement: Placement,
) {
    let floor = floor(results, who);
    if results
        .rounds
        .iter()
        .flatten()
        .flatten()
        .all(|visit| visit.placement != placement)
    {
        let _ = writeln!(
            table,
            "\n{placement}: missing: the two CPUs were never placed so"
        );
        return;
    }
    for operation in [Operation::RoundTrip, Operation::Streaming] {
        let best = best_crate(results, who, operation, placement);
        let _ = writeln!(
            table,
            "\n{:<34}{:>9}{:>9}{:>9}{:>9}{:>9}{:>12}{:>14}",
            format!("{placement}: {}", operation.name()),
            "rounds",
            "min ns",
            "median",
            "p99",
            "M/s",
            "to floor",
            "to best crate"
        );
        for (number, job) in results.jobs.iter().enumerate() {
            if job.operation != operation {
                continue;
            }
            let who = &who[job.subject];
            let rounds = visits(results, number, placement).len();
            if rounds < LEAST_ROUNDS {
                let _ = writeln!(
                    table,
                    "{:<34}{rounds:>9}  missing: {LEAST_ROUNDS} rounds are the least for a figure",
                    who.title
                );
                continue;
            }
            let ratio = |other: Option<usize>| {
                let mut ratios = ratios(results, number, other?, placement);
                (ratios.len() >= LEAST_ROUNDS).then(|| median(&mut ratios))
            };
            let to_floor = ratio((operation == Operation::RoundTrip).then_some(floor));
            let to_best = ratio(best);
            let mut samples = samples(results, number, placement);
            let spread = spread(&mut samples);
            let mut more = String::new();
            for (key, ratio) in [("to_floor", to_floor), ("to_best_crate", to_best)] {
                if let Some(ratio) = ratio {
                    let _ = write!(more, ",\"{key}\":{ratio:.3}");
                }
            }
            let _ = writeln!(
                text,
                "result {{\"benchmark\":\"host\",\"operation\":\"{}\",\"unit\":\"ns\",{spread},{},\
                 \"placement\":\"{placement}\",\"rounds\":{rounds}{more}}}",
                operation.name(),
                who.keys
            );
            let middle = median(&mut samples);
            let p99 = samples[(samples.len() * 99).div_ceil(100) - 1];
            let rate = match operation {
                Operation::RoundTrip => "-".to_owned(),
                Operation::Streaming => format!("{:.1}", 1000.0 / middle),
            };
            let _ = writeln!(
                table,
                "{:<34}{rounds:>9}{:>9.1}{middle:>10.1}{p99:>12.1}{rate:>8}{:>12}{:>14}",
                who.title,
                samples[0],
                shown(to_floor),
                shown(to_best)
            );
        }
    }
}

fn shown(ratio: Option<f64>) -> String {
    ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// A line and a row for each subject that a target is for.
fn verdict(
    text: &mut String,
    verdicts: &mut String,
    results: &Results,
    who: &[Who],
    placement: Placement,
    target: &Target,
    place: usize,
) {
    let most = target.most[place];
    let (other, to) = match target.to {
        To::Floor => (Some(floor(results, who)), "the floor".to_owned()),
        To::BestCrate => {
            let best = best_crate(results, who, target.operation, placement);
            let title = best.map(|job| who[results.jobs[job].subject].title.clone());
            (best, title.unwrap_or("the best crate".to_owned()))
        }
    };
    for (number, job) in results.jobs.iter().enumerate() {
        let who = &who[job.subject];
        if job.operation != target.operation || who.class != target.of {
            continue;
        }
        let what = format!(
            "{placement}: {}, {}, to {to}",
            who.title,
            job.operation.name()
        );
        let mut ratios = other.map_or(Vec::new(), |other| {
            ratios(results, number, other, placement)
        });
        if ratios.len() < LEAST_ROUNDS {
            row(verdicts, &what, "missing", &format!("{most:.2}"), "-");
            continue;
        }
        let ratio = median(&mut ratios);
        let met = ratio <= most;
        let to = if target.to == To::Floor {
            "floor"
        } else {
            "best crate"
        };
        let _ = writeln!(
            text,
            "result {{\"benchmark\":\"host\",\"operation\":\"{} to {to}\",\"unit\":\"count\",\
             \"value\":{ratio:.3},\"rounds\":{},\"target\":{most:.3},\"met\":{met},{},\
             \"placement\":\"{placement}\"}}",
            job.operation.name(),
            ratios.len(),
            who.keys
        );
        row(
            verdicts,
            &what,
            &format!("{ratio:.2}"),
            &format!("{most:.2}"),
            word(met),
        );
    }
}

fn row(verdicts: &mut String, what: &str, figure: &str, target: &str, met: &str) {
    if verdicts.is_empty() {
        verdicts.push_str(
            "\nTargets, as multiples of the time that something else takes in the same rounds:\n",
        );
    }
    let _ = writeln!(
        verdicts,
        "{what:<68}{figure:>9}  at most {target:>5}  {met}"
    );
}

fn word(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Lines and a table of instructions.
pub fn of_counts(counts: &[(Subject, f64)]) -> String {
    let mut lines = String::new();
    let mut table = format!(
        "\ninstructions for sending and receiving 56 bytes (at most {INSTRUCTIONS} for urpc):\n"
    );
    for (subject, count) in counts {
        let who = Who::of(subject);
        let judged = matches!(who.class, Class::Channel | Class::CallLine);
        let (mut target, mut met) = (String::new(), "");
        if judged {
            target = format!(
                ",\"target\":{INSTRUCTIONS},\"met\":{}",
                *count <= INSTRUCTIONS
            );
            met = word(*count <= INSTRUCTIONS);
        }
        let _ = writeln!(
            lines,
            "result {{\"benchmark\":\"host\",\"operation\":\"instructions for send and receive\",\
             \"unit\":\"count\",\"value\":{count:.2},{}{target}}}",
            who.keys
        );
        let _ = writeln!(table, "{:<34}{count:>9.1}  {met}", who.title);
    }
    lines + &table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::{Job, Visit};
    use crate::subject::all;

    /// Rounds in which every job takes its number + 1 times the round's own unit.
    fn results(jobs: Vec<Job>, placements: &[Placement]) -> Results {
        let visit = |job: usize, round: usize, placement: Placement| {
            let time = (job + 1) as f64 * (round + 1) as f64;
            Some(Visit {
                placement,
                samples: vec![time; 10],
                median: time,
            })
        };
        let rounds = placements.iter().enumerate().map(|(round, placement)| {
            (0..jobs.len())
                .map(|job| visit(job, round, *placement))
                .collect()
        });
        Results {
            rounds: rounds.collect(),
            probes: vec![54.0; 3],
            jobs,
        }
    }

    fn round_trips() -> (Vec<Who>, Vec<Job>) {
        let who: Vec<Who> = all().iter().map(Who::of).collect();
        let jobs = (0..5).map(|subject| Job {
            subject,
            operation: Operation::RoundTrip,
        });
        (who, jobs.collect())
    }

    #[test]
    fn ratios_are_taken_within_a_round_and_a_placement() {
        let (who, jobs) = round_trips();
        let mut results = results(jobs, &[Placement::Near; 12]);
        results.rounds[3][1] = None;
        results.rounds[4][1].as_mut().unwrap().placement = Placement::Far;
        assert_eq!(ratios(&results, 1, 0, Placement::Near), [2.0; 10]);
        assert!(ratios(&results, 1, 0, Placement::Far).is_empty());
        let text = of(&results, &who);
        assert!(text.contains("\"subject\":\"urpc\",\"slots\":16,\"placement\":\"near\",\"rounds\":10,\"to_floor\":2.000"), "{text}");
        // The call line takes 4 floors, and the only crate 5.
        assert!(
            text.contains("\"value\":4.000,\"rounds\":12,\"target\":0.750,\"met\":false"),
            "{text}"
        );
        assert!(
            text.contains("\"value\":0.400,\"rounds\":10,\"target\":0.800,\"met\":true"),
            "{text}"
        );
    }

    #[test]
    fn too_few_rounds_are_no_figure() {
        let (who, jobs) = round_trips();
        let text = of(&results(jobs, &[Placement::Far; 9]), &who);
        assert!(!text.contains("\"operation\":\"round trip"), "{text}");
        assert!(text.contains("9  missing: 10 rounds"), "{text}");
    }

    #[test]
    fn every_hundredth_sample_may_exceed_p99() {
        let mut samples: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(
            spread(&mut samples),
            "\"minimum\":1.0,\"median\":100.5,\"p99\":198.0,\"samples\":200"
        );
    }
}
