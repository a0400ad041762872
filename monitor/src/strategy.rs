//! How messages to many spread: what programs set, and what messages cost on this machine.
//!
//! For trees that are computed from costs, those are measured first ([`protocols::costs`]): here is
//! what takes a clock.

use crate::Monitor;
use crate::requests::{Answer, Requester};
use alloc::vec::Vec;
use protocols::agent::Line;
use protocols::costs::Costs;
use protocols::costs::tables::{number_of, settings_of};
use protocols::tree::Strategy;
use rt::clock::{self, Cycles};
use rt::interface::{Error, strategy};
use urpc::Message;

/// Most changes of what all cores have set that may be under way.
const MAX_WAITING: usize = 16;

/// What this monitor remembers of strategies.
#[derive(Default)]
pub struct Strategies {
    /// Settings that were asked for here, and by whom; those of computed trees name no table before
    /// it is there.
    configuring: Vec<(u32, Requester)>,
    /// The core whose pings are timed, and when it was last looked whether one had come.
    timed: Option<(usize, Cycles)>,
}

impl Strategies {
    /// A line of a core is about to be taken, if there is one.
    pub fn takes_from(&mut self, core: usize) {
        if let Some((timed, at)) = &mut self.timed
            && *timed == core
        {
            *at = clock::cycles();
        }
    }
}

impl Monitor {
    /// All cores are to spread messages in another way.
    pub fn set_strategy(
        &mut self,
        requester: Requester,
        job: u64,
        [which, arity]: [u64; 2],
    ) -> Result<Option<[u64; 5]>, Error> {
        if self.own != 0 {
            return Err(Error::OtherCore);
        }
        if self.program != Some(job) {
            return Err(Error::NotAllowed);
        }
        let has_arity = (1..=strategy::MAX_ARITY).contains(&arity);
        let arity = arity as usize;
        let strategy = match which {
            strategy::UNICAST => Strategy::Unicast,
            strategy::TREE if has_arity => Strategy::Tree { arity },
            strategy::SOCKETS if has_arity => Strategy::Sockets { arity },
            strategy::COMPUTED => Strategy::Computed,
            _ => return Err(Error::BadArgument),
        };
        let waiting = &self.strategies.configuring;
        // Whoever asks for computed ones again wants the costs to be measured again.
        let holds = strategy != Strategy::Computed && self.view().settings == strategy.settings();
        if holds && waiting.is_empty() {
            return Ok(Some([0; 5]));
        }
        // One at a time: others would take its place before it holds.
        let under_way = waiting.first().map(|(settings, _)| *settings);
        let is_same = |settings: u32| {
            settings == strategy.settings()
                || strategy == Strategy::Computed && number_of(settings).is_some()
        };
        if under_way.is_some_and(|settings| !is_same(settings)) || waiting.len() >= MAX_WAITING {
            return Err(Error::Busy);
        }
        let settings = under_way.unwrap_or(strategy.settings());
        self.strategies.configuring.push((settings, requester));
        if under_way.is_some() {
            // What they wait for comes to both.
        } else if strategy == Strategy::Computed {
            let actions = self.agent.with_costs(Costs::survey);
            self.carry_out(actions);
        } else {
            self.configure(settings);
        }
        Ok(None)
    }

    fn configure(&mut self, settings: u32) {
        let now_ns = self.awake_ns();
        let actions = self
            .agent
            .with_membership(|one| one.configure(settings, now_ns));
        self.carry_out(actions);
    }

    /// A view holds: who asked for its settings has them.
    pub fn answer_configured(&mut self, settings: u32) {
        self.answer_waiting(settings, Ok(Some([0; 5])));
    }

    fn answer_waiting(&mut self, settings: u32, answer: Result<Option<[u64; 5]>, Error>) {
        let has = |(asked, _): &mut (u32, Requester)| *asked == settings;
        let waiting = &mut self.strategies.configuring;
        let answered: Vec<_> = waiting.extract_if(.., has).collect();
        for (_, requester) in answered {
            self.answer(requester, answer);
        }
    }

    /// All costs were measured, and this is the number of their table.
    pub fn surveyed(&mut self, number: Option<u32>) {
        let asked = Strategy::Computed.settings();
        let Some(number) = number else {
            return self.answer_waiting(asked, Err(Error::Busy));
        };
        let settings = settings_of(number);
        for (waiting, _) in &mut self.strategies.configuring {
            if *waiting == asked {
                *waiting = settings;
            }
        }
        self.configure(settings);
    }

    /// Sends a ping, and measures how long that takes.
    pub fn send_ping(&mut self, to: usize, number: u32, Line { kind, words }: Line) {
        let now_ns = self.awake_ns();
        let began = clock::cycles();
        let message = Message::new(kind, words);
        self.mesh.send(&mut self.store, to, &message);
        let took_ns = Cycles(clock::cycles().0.saturating_sub(began.0)).as_ns();
        let actions = self
            .agent
            .with_costs(|one| one.sent(number, now_ns, took_ns));
        self.carry_out(actions);
    }

    /// Answers a ping. From the second one of a core on it is known when its line was taken: that
    /// is not noted for all cores all the time.
    pub fn answer_ping(&mut self, to: usize, number: u32) {
        let last = self.strategies.timed.replace((to, clock::cycles()));
        let timed = last.filter(|(core, _)| *core == to);
        let took_ns = timed.map(|(_, at)| Cycles(clock::cycles().0.saturating_sub(at.0)).as_ns());
        let actions = self.agent.with_costs(|one| one.answer(to, number, took_ns));
        self.carry_out(actions);
    }

    /// What a message between two sockets costs, by the table of the view; that table's number is 0 if
    /// there is none.
    pub fn agreed_cost(&self, from: u64, to: u64) -> Answer {
        let Some(table) = self.agent.table() else {
            return Ok([0; 5]);
        };
        let cost = table.cost(from as usize, to as usize);
        let cost = cost.ok_or(Error::BadArgument)?;
        let figures = [cost.send_ns, cost.latency_ns, cost.receive_ns];
        let [send_ns, latency_ns, receive_ns] = figures.map(u64::from);
        Ok([table.number().into(), send_ns, latency_ns, receive_ns, 0])
    }
}
