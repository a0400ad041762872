//! What has to hold of the simulator itself, whatever protocol it runs.

use proptest::prelude::*;
use protocols::core_set::CoreSet;
use protocols::membership::Message;
use protocols::view::{Epoch, View};
use sim::broadcast::{Broadcast, Way};
use sim::campaign::Campaign;
use sim::faults::Schedule;
use sim::machine::{Machine, SHIPPED};
use sim::membership::{Member, Members};
use sim::node::{Context, Node, Outcome, Output, Outputs, Protocol};
use sim::protocol;
use sim::random::Random;
use sim::world::{Lost, Report, Setup, World};
use std::time::Instant;

/// Nodes that talk to random others for a while; the messages of each pair are numbered.
struct Chatter {
    core: usize,
    life: u32,
    random: Random,
    left: u32,
    sent: Vec<u32>,
}

#[derive(Debug, Hash)]
struct Numbered {
    /// Which life of the sender, and the how manyeth to this receiver.
    life: u32,
    number: u32,
}

impl Chatter {
    fn chat(&mut self, outputs: &mut Outputs<Self>) {
        let cores = self.sent.len();
        self.left = self.left.saturating_sub(1);
        for _ in 0..self.random.below(4) {
            if self.left == 0 || cores < 2 {
                return;
            }
            let to = (self.core + 1 + self.random.below(cores as u64 - 1) as usize) % cores;
            let number = self.sent[to];
            self.sent[to] += 1;
            let life = self.life;
            outputs.push(Output::Send(to, Numbered { life, number }));
        }
        outputs.push(Output::Note((0, Numbered { life: 0, number: 0 })));
    }
}

impl Node for Chatter {
    type Message = Numbered;
    type Note = (usize, Numbered);

    fn start(&mut self, _: u64, outputs: &mut Outputs<Self>) {
        self.chat(outputs);
    }

    fn on_message(&mut self, from: usize, message: Numbered, _: u64, outputs: &mut Outputs<Self>) {
        outputs.push(Output::Note((from + 1, message)));
        self.chat(outputs);
    }

    fn on_tick(&mut self, _: u64, outputs: &mut Outputs<Self>) {
        self.chat(outputs);
    }

    fn deadline_ns(&self) -> Option<u64> {
        // Later and later: it ends.
        (self.left > 0).then_some(u64::from(300 - self.left.min(300)) * 2_000)
    }
}

/// Judges the order of messages.
struct Order {
    cores: usize,
    seed: u64,
    last: Vec<Option<(u32, u32)>>,
    lives: Vec<u32>,
    /// Something may have been lost in between.
    has_gaps: bool,
}

impl Order {
    fn new(cores: usize, seed: u64, has_gaps: bool) -> Self {
        Self {
            cores,
            seed,
            last: vec![None; cores * cores],
            lives: vec![0; cores],
            has_gaps,
        }
    }
}

impl Protocol for Order {
    type Node = Chatter;

    fn node(&mut self, core: usize, anew: bool) -> Chatter {
        self.lives[core] += u32::from(anew);
        Chatter {
            core,
            life: self.lives[core],
            random: Random::new(self.seed ^ core as u64),
            left: 300,
            sent: vec![0; self.cores],
        }
    }

    fn on_note(
        &mut self,
        core: usize,
        (from, note): (usize, Numbered),
        _: Context,
    ) -> Result<(), String> {
        let Some(from) = from.checked_sub(1) else {
            return Ok(());
        };
        let found = (note.life, note.number);
        let last = self.last[from * self.cores + core].replace(found);
        let next = last.map_or((0, 0), |(life, number)| (life, number + 1));
        if found < next || found > next && !self.has_gaps {
            return Err(format!(
                "{from} to {core}: expected {next:?}, found {found:?}"
            ));
        }
        Ok(())
    }

    fn outcome(&self) -> Result<Outcome, String> {
        Ok(Outcome::Survived)
    }
}

fn setup(cores: usize, seed: u64, schedule: Schedule, jitter_ns: u64) -> Setup {
    Setup {
        cores,
        seed,
        schedule,
        jitter_ns,
        restart_ns: 50_000,
        bound_ns: 100_000_000,
        max_events: 1_000_000,
        is_traced: false,
    }
}

fn chat(machine: &Machine, has_gaps: bool, setup: Setup) -> (Order, Report) {
    let order = Order::new(setup.cores, setup.seed, has_gaps);
    World::new(order, machine, setup).run()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Whatever goes wrong: the messages of a pair come in order, every message is accounted for,
    /// and a seed determines all.
    #[test]
    fn order_conservation_and_determinism(
        cores in 1usize..12,
        seed: u64,
        jitter_ns in prop_oneof![Just(0u64), 0u64..50_000],
        is_faulty: bool,
        machine in 0..SHIPPED.len(),
    ) {
        let machine = Machine::shipped(SHIPPED[machine].0).unwrap();
        let schedule = match is_faulty {
            true => Schedule::random(seed, cores, 600_000, 50_000),
            false => Schedule::default(),
        };
        let setup = setup(cores, seed, schedule, jitter_ns);
        let (_, report) = chat(&machine, is_faulty, setup.clone());
        prop_assert_eq!(&report.outcome, &Ok(Outcome::Survived));
        prop_assert!(report.counts.add_up(), "{:?}", report.counts);
        if !is_faulty {
            prop_assert_eq!(report.counts.delivered, report.counts.sent);
        }
        let (_, again) = chat(&machine, is_faulty, setup.clone());
        prop_assert_eq!((again.hash, &again.counts), (report.hash, &report.counts));
        let other = Setup { seed: seed ^ 1, ..setup };
        let (_, other) = chat(&machine, is_faulty, other);
        prop_assert!(cores < 2 || other.hash != report.hash);
    }
}

/// A broadcast on some cores with faults.
fn broadcast(cores: usize, rounds: u32, faults: &str) -> (Broadcast, Report) {
    let machine = Machine::shipped("two-socket").unwrap();
    let schedule = match faults {
        "" => Schedule::default(),
        faults => faults.parse().unwrap(),
    };
    let protocol = Broadcast::new(Way::Tree(2), cores, &machine, rounds);
    World::new(protocol, &machine, setup(cores, 1, schedule, 0)).run()
}

#[test]
fn a_frozen_core_goes_on_where_it_was() {
    let (plain, report) = broadcast(6, 20, "");
    let plain_ns = report.end_ns;
    assert_eq!(plain.times_ns.len(), 20);
    for core in 0..6 {
        let freeze = format!("freeze {core} at 5us for 3ms");
        let (frozen, report) = broadcast(6, 20, &freeze);
        assert_eq!(report.outcome, Ok(Outcome::Survived));
        assert_eq!(frozen.times_ns.len(), 20);
        assert_eq!(report.counts.delivered, report.counts.sent);
        let later = report.end_ns - plain_ns;
        // Whoever slept meanwhile has to be woken, and may sleep again before the next round.
        assert!((2_990_000..3_300_000).contains(&later), "{core}: {later}");
    }
}

#[test]
fn faults_do_what_they_say() {
    let plain_ns = broadcast(6, 20, "").1.end_ns;
    for core in 0..6 {
        let (_, report) = broadcast(6, 20, &format!("stop {core} at 5us"));
        assert_eq!(report.outcome, Ok(Outcome::Aborted));
        assert_eq!((report.counts.stops, report.counts.restarts), (1, 0));
        assert!(report.counts.add_up());
        let (_, report) = broadcast(6, 20, &format!("slow {core} by 50 at 5us"));
        assert_eq!(report.outcome, Ok(Outcome::Survived));
        assert!(report.end_ns > 5 * plain_ns, "{} {plain_ns}", report.end_ns);
    }
    // The root has two children: it stops in the middle of a round.
    let (_, report) = broadcast(6, 20, "stop 0 at 0ns after 11");
    assert_eq!(report.outcome, Ok(Outcome::Aborted));
    assert_eq!(report.counts.lost[Lost::Unsent as usize], 1);
    let (_, report) = broadcast(6, 20, "delay 1->0 by 2ms at 5us for 10us");
    assert_eq!(report.outcome, Ok(Outcome::Survived));
    assert!(report.end_ns > plain_ns, "{} {plain_ns}", report.end_ns);
    // Core 1 sleeps until the first round comes to it.
    let (_, report) = broadcast(
        6,
        20,
        "delay 0->1 by 1ms at 0ns for 1ms; lose-doorbell 1 at 1us",
    );
    assert_eq!(report.counts.doorbells_lost, 1);
    assert!(
        report.outcome.is_err(),
        "nobody stopped, and it does not end"
    );
    assert_eq!(report.counts.under_way, 1);
}

#[test]
fn a_broadcast_takes_two_messages_for_each_other_core() {
    for (name, _) in SHIPPED {
        let machine = Machine::shipped(name).unwrap();
        for cores in [1, 2, 3, 7, 64, 300] {
            let measured = protocol::Protocol::Broadcast
                .figures(&machine, cores, 1, None)
                .unwrap();
            assert_eq!(measured.figures.len(), 2 * Way::ALL.len());
            for figure in &measured.figures {
                if figure.unit == protocol::Unit::Messages {
                    assert_eq!(figure.value, 2 * (cores as u64 - 1), "{figure:?}");
                }
            }
        }
    }
}

#[test]
fn trees_are_faster_than_unicast_on_many_cores() {
    for (name, _) in SHIPPED {
        let machine = Machine::shipped(name).unwrap();
        let measured = protocol::Protocol::Broadcast
            .figures(&machine, 1024, 1, None)
            .unwrap();
        let time = |strategy: &str| {
            let mut figures = measured.figures.iter();
            let figure = figures
                .find(|one| one.strategy == strategy && one.unit == protocol::Unit::Nanoseconds);
            figure.unwrap().value
        };
        assert!(
            time("8-ary tree") * 10 < time("unicast"),
            "{name}: {measured:?}"
        );
    }
}

#[test]
fn protocols_survive_seeds() {
    let machine = Machine::shipped("two-socket").unwrap();
    for cores in [1, 2, 3, 4, 5, 8, 16] {
        for protocol in protocol::Protocol::ALL {
            let campaign = Campaign {
                protocol,
                machine: &machine,
                cores,
                seed: 1,
                count: 300,
            };
            let tally = campaign.run(2, || false);
            println!("{} {cores}: {tally:?}", protocol.name());
            assert_eq!(tally.violated, 0, "{tally:#?}");
            assert_eq!(campaign.run(1, || false).hash, tally.hash);
        }
    }
}

/// A judge that is told of two views of one epoch says so.
#[test]
fn the_judge_of_membership_sees_what_is_wrong() {
    let context = Context { now_ns: 1, sent: 0 };
    let epoch = Epoch::default().next(0);
    let view = |cores: &[usize], epoch| View {
        epoch,
        cores: cores.iter().copied().collect::<CoreSet>(),
        settings: 0,
    };
    let mut judge = Members::new(3, 1000);
    judge.on_note(0, view(&[0, 1, 2], epoch), context).unwrap();
    let error = judge.on_note(1, view(&[1, 2], epoch), context).unwrap_err();
    assert!(error.contains("two views of epoch"), "{error}");
    let error = judge
        .on_note(2, view(&[0, 1], epoch.next(0)), context)
        .unwrap_err();
    assert!(error.contains("is not in it"), "{error}");
    let error = judge
        .on_note(0, view(&[0, 1, 2], epoch), context)
        .unwrap_err();
    assert!(error.contains("after"), "{error}");
    judge.on_note(2, view(&[0, 1, 2], epoch), context).unwrap();
    let error = judge
        .on_note(0, view(&[0, 1], epoch.next(0)), context)
        .unwrap_err();
    assert!(error.contains("core 2 goes on"), "{error}");
    assert!(judge.outcome().unwrap_err().contains("no agreement"));
}

/// Figures of this machine, printed: messages a second, and memory for each core and message.
#[test]
fn speed() {
    let machine = Machine::shipped("eight-socket").unwrap();
    for (way, cores, rounds) in [
        (Way::Unicast, 64, 2000),
        (Way::Unicast, 4096, 100),
        (Way::Tree(8), 4096, 100),
    ] {
        let setup = Setup {
            bound_ns: u64::MAX / 2,
            max_events: u64::MAX,
            ..setup(cores, 1, Schedule::default(), 0)
        };
        let begun = Instant::now();
        let protocol = Broadcast::new(way, cores, &machine, rounds);
        let (_, report) = World::new(protocol, &machine, setup).run();
        assert_eq!(report.outcome, Ok(Outcome::Survived));
        let rate = report.counts.delivered as f64 / begun.elapsed().as_secs_f64();
        println!(
            "{way}, {cores} cores: {:.2} million messages a second, {} at once",
            rate / 1e6,
            report.counts.most_under_way
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for line in status.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("{line}");
    }
}

/// What a mutated node does to its outputs.
type Mutation = fn(&mut Member, u64, &mut Outputs<Member>);

/// A member whose outputs are changed before they are carried out.
struct Mutant {
    member: Member,
    mutation: Mutation,
}

impl Mutant {
    fn mutate(&mut self, before: usize, now_ns: u64, outputs: &mut Outputs<Self>) {
        let mut own = outputs.split_off(before);
        (self.mutation)(&mut self.member, now_ns, &mut own);
        outputs.append(&mut own);
    }
}

impl Node for Mutant {
    type Message = Message;
    type Note = View;

    fn start(&mut self, now_ns: u64, outputs: &mut Outputs<Self>) {
        self.member.start(now_ns, outputs);
    }

    fn on_message(
        &mut self,
        from: usize,
        message: Message,
        now_ns: u64,
        outputs: &mut Outputs<Self>,
    ) {
        let before = outputs.len();
        self.member.on_message(from, message, now_ns, outputs);
        self.mutate(before, now_ns, outputs);
    }

    fn on_tick(&mut self, now_ns: u64, outputs: &mut Outputs<Self>) {
        let before = outputs.len();
        self.member.on_tick(now_ns, outputs);
        self.mutate(before, now_ns, outputs);
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.member.deadline_ns()
    }

    fn takes_part(&self) -> bool {
        self.member.takes_part()
    }

    fn may_sponsor(&self, core: usize) -> bool {
        self.member.may_sponsor(core)
    }

    fn sponsor(&mut self, core: usize, now_ns: u64, outputs: &mut Outputs<Self>) {
        let before = outputs.len();
        self.member.sponsor(core, now_ns, outputs);
        self.mutate(before, now_ns, outputs);
    }
}

/// Mutants, judged as members are.
struct Mutants {
    judge: Members,
    mutation: Mutation,
}

impl Protocol for Mutants {
    type Node = Mutant;

    fn node(&mut self, core: usize, anew: bool) -> Mutant {
        Mutant {
            member: self.judge.node(core, anew),
            mutation: self.mutation,
        }
    }

    fn on_note(&mut self, core: usize, view: View, context: Context) -> Result<(), String> {
        self.judge.on_note(core, view, context)
    }

    fn on_fence(&mut self, core: usize, context: Context) -> Result<(), String> {
        self.judge.on_fence(core, context)
    }

    fn on_stop(&mut self, core: usize, context: Context) {
        self.judge.on_stop(core, context);
    }

    fn on_restart(&mut self, core: usize, context: Context) {
        self.judge.on_restart(core, context);
    }

    fn outcome(&self) -> Result<Outcome, String> {
        self.judge.outcome()
    }
}

/// How many of so many seeds break a rule, and which.
fn violations(mutation: Mutation, seeds: u64) -> (usize, Vec<String>) {
    let (cores, patience_ns) = (4, protocol::patience_ns(4));
    let machine = Machine::shipped("two-socket").unwrap();
    let mut rules = Vec::new();
    let mut count = 0;
    for seed in 0..seeds {
        let setup = Setup {
            restart_ns: 4 * patience_ns,
            bound_ns: 64 * patience_ns,
            ..setup(
                cores,
                seed,
                Schedule::random(seed, cores, 8 * patience_ns, patience_ns),
                seed % 3 * 10_000,
            )
        };
        let judge = Members::new(cores, patience_ns);
        let (_, report) = World::new(Mutants { judge, mutation }, &machine, setup).run();
        assert!(report.counts.add_up());
        if let Err(violation) = report.outcome {
            count += 1;
            let rule: String = violation
                .rule
                .chars()
                .filter(|it| !it.is_ascii_digit())
                .take(24)
                .collect();
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    (count, rules)
}

/// Answers every question of a coordinator to its members itself, with the view that the
/// coordinator holds.
fn asks_nobody(member: &mut Member, now_ns: u64, outputs: &mut Outputs<Member>) {
    let mut at = 0;
    while at < outputs.len() {
        if let Output::Send(to, Message::Gather { ballot, .. }) = outputs[at]
            && member.view().cores.contains(to)
        {
            outputs.remove(at);
            let view = member.view().clone();
            member.on_message(to, Message::Gathered { ballot, view }, now_ns, outputs);
        } else {
            at += 1;
        }
    }
}

#[test]
fn mutated_members_are_caught() {
    const SEEDS: u64 = 2000;
    assert_eq!(violations(|_, _, _| (), SEEDS).0, 0);
    let mutations: [(&str, Mutation); 4] = [
        ("fences nobody", |_, _, outputs| {
            outputs.retain(|output| !matches!(output, Output::Fence(_)));
        }),
        ("asks nobody", asks_nobody),
        ("tells nobody of the view", |_, _, outputs| {
            outputs.retain(|output| !matches!(output, Output::Send(_, Message::View(_))));
        }),
        ("fences later than it goes on", |_, _, outputs| {
            outputs.sort_by_key(|output| matches!(output, Output::Fence(_)));
        }),
    ];
    for (name, mutation) in mutations {
        let (count, rules) = violations(mutation, SEEDS);
        println!("{name}: {count} of {SEEDS} seeds break a rule: {rules:?}");
        assert!(count > 0, "{name} is not caught");
    }
}
