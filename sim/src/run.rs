//! Runs seeds: one, or a range of them on several threads, and says what came out.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use toe_faults::{Rules, Site};
use toe_firmware::fault::SITES;

use crate::chance::Seed;
use crate::scenes::{ALL, BASE, Draw, Ends, Named, Scene, drawn};
use crate::singles::{Strike, drawn_strikes, rules};
use crate::transcript::narrate;
use crate::world::{World, check_flow};

/// Everything must have come to its end so long after the bad time, in virtual time.
const CONVERGENCE_US: u64 = 3_000_000_000;
/// After so long without an answer every card has given up (RFC 9293, 3.8.3: R2), and then some.
const GIVEN_UP_US: u64 = 1_500_000_000;
/// So many violations are told in full.
const TOLD_MAX: usize = 10;

/// What a seed came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// Seeds.
    pub seeds: u64,
    /// Frames that the two ends put on the wire.
    pub segments: u64,
    /// Connections opened, or tried.
    pub lifecycles: u64,
    /// Virtual time, in microseconds.
    pub virtual_us: u64,
    /// A hash of all that happened; of several seeds, the sum of theirs.
    pub trace: u64,
    /// Faults that struck, by site.
    pub strikes: [u64; SITES],
}

impl Default for Counts {
    fn default() -> Self {
        Self { seeds: 0, segments: 0, lifecycles: 0, virtual_us: 0, trace: 0, strikes: [0; SITES] }
    }
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.segments += other.segments;
        self.lifecycles += other.lifecycles;
        self.virtual_us += other.virtual_us;
        self.trace = self.trace.wrapping_add(other.trace);
        self.strikes.iter_mut().zip(other.strikes).for_each(|(sum, n)| *sum += n);
    }
}

/// A seed under which something did not hold.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Violation {
    /// The seed.
    pub seed: u64,
    /// The scenario's name.
    pub scenario: &'static str,
    /// What did not hold.
    pub text: String,
}

/// What is to be run.
#[derive(Clone)]
pub struct Order {
    /// The scenario; `None`: each seed's own.
    pub scenario: Option<&'static Named>,
    /// What stands at the ends.
    pub ends: Ends,
    /// Faults at every card.
    pub faults: Option<Rules>,
    /// Instead of these, two to so many faults at passages of sites that each seed draws, in one of the base scenarios between
    /// two cards; zero: none.
    pub drawn_faults: u64,
    /// Whether faults strike in the good time, too.
    pub faults_last: bool,
}

impl Order {
    /// What a seed is.
    fn scenario_of(&self, seed: Seed) -> &'static Named {
        match self.scenario {
            Some(scenario) => scenario,
            None if self.drawn_faults > 0 => &ALL[seed.stream("base").below(BASE as u64) as usize],
            None => drawn(seed),
        }
    }
}

thread_local! {
    /// What the last panic of this thread said.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// From now on a panic of a thread is remembered and not printed.
pub fn remember_panics() {
    std::panic::set_hook(Box::new(|info| {
        let said = info.payload().downcast_ref::<String>().cloned();
        let said = said.or_else(|| info.payload().downcast_ref::<&str>().map(|&s| s.to_owned()));
        let at = info.location().map(|l| format!(" ({}:{})", l.file(), l.line())).unwrap_or_default();
        let text = format!("{}{at}", said.unwrap_or_else(|| "a panic without words".into()));
        // While a thread ends there is nowhere to write to.
        let _ = SAID.try_with(|s| *s.borrow_mut() = text);
    }));
}

/// How often something passes each site of each card under a seed.
pub fn passages(seed: u64, order: &Order) -> [[u64; SITES]; 2] {
    let mut world = one(seed, order).1;
    [0, 1].map(|i| {
        let card = world.try_card(i);
        let counted = card.and_then(|card| card.counted_faults(|injector| Site::ALL.map(|s| injector.passages(s))));
        counted.unwrap_or([0; SITES])
    })
}

/// Every strike of the first card's faults, and then of the second's.
#[cfg(test)]
pub fn strikes(seed: u64, order: &Order) -> Vec<toe_faults::Record> {
    let mut world = one(seed, order).1;
    let all = |injector: &toe_faults::Injector| injector.records().copied().collect::<Vec<_>>();
    let records = [0, 1].map(|i| world.card(i).counted_faults(all).unwrap_or_default());
    records.concat()
}

/// Runs one seed to its end. Panics where something does not hold.
fn one(seed: u64, order: &Order) -> (Counts, World) {
    let seed = Seed(seed);
    let scenario = order.scenario_of(seed);
    let scene = (scenario.build)(&Draw { seed, ends: order.ends });
    let rules = match order.drawn_faults {
        0 => order.faults.clone(),
        most => Some(rules(&drawn_strikes(seed, most))),
    };
    let faults = rules.map(|rules| Faults { rules, seed: seed.stream("faults").bits(), last: order.faults_last });
    hold(scene, faults.as_ref())
}

/// Faults at every card.
pub struct Faults {
    pub rules: Rules,
    /// All their chance is from it.
    pub seed: u64,
    /// Whether they strike beyond the bad time, too.
    pub last: bool,
}

/// Runs a scene to its end, with faults at every card, if there are any. Panics where something does not hold.
pub fn hold(mut scene: Scene, faults: Option<&Faults>) -> (Counts, World) {
    let world = &mut scene.world;
    let mut is_broken = false;
    if let Some(Faults { rules, seed, last }) = faults {
        let excuses = world.arm(rules, *seed, *last);
        // What a fault of the channel repeats or holds back may speak of a connection that is over.
        scene.may_be_late = true;
        is_broken = excuses.iter().any(|excuse| excuse.breaks);
        scene.is_clean &= !scene.is_crossing && !is_broken;
    }
    let in_time = world.run(scene.mended_us + CONVERGENCE_US);
    if !in_time {
        let at_us = world.now_us();
        if let Some(flow) = (0..world.flows()).find(|&f| world.outcomes(f).contains(&None)) {
            let ends = world.apps(flow).each_ref().map(|app| (app.written, app.read, &app.outcome, app.plan()));
            panic!("no end: at {at_us} us flow {flow} stands; wrote, read, outcome and plan: {ends:?}");
        }
        panic!("no end: at {at_us} us a connection is not released");
    }
    let lifecycles = world.flows();
    for flow in (0..lifecycles).filter(|_| scene.is_paired) {
        check_flow(world, flow, scene.is_clean);
    }
    world.wait(scene.rest_us);
    if is_broken && (0..2).any(|i| world.try_card(i).is_some_and(|card| card.has_connections())) {
        // A card that has lost its way to the peer hears of nothing, and gives up by itself.
        world.wait(GIVEN_UP_US);
    }
    for i in [0, 1] {
        if let Some(card) = world.try_card(i) {
            card.check_rest(scene.may_be_late);
        }
    }
    world.check_links();
    let counts = Counts {
        seeds: 1,
        segments: world.segments,
        lifecycles: lifecycles as u64,
        virtual_us: world.now_us(),
        trace: world.transcript(),
        strikes: world.strikes(),
    };
    (counts, scene.world)
}

/// Runs one seed; what did not hold, if anything.
pub fn judged(seed: u64, order: &Order) -> Result<Counts, Violation> {
    catch_unwind(AssertUnwindSafe(|| one(seed, order).0)).map_err(|_| Violation {
        seed,
        scenario: order.scenario_of(Seed(seed)).name,
        text: SAID.with(|s| s.borrow().clone()),
    })
}

/// Runs `seeds` seeds from `from` on, on `jobs` threads, and prints what came out; whether everything held.
pub fn range(from: u64, seeds: u64, order: &Order, jobs: u64) -> bool {
    counted_range(from, seeds, order, jobs).1
}

/// The same, with what they came to.
pub(crate) fn counted_range(from: u64, seeds: u64, order: &Order, jobs: u64) -> (Counts, bool) {
    remember_panics();
    let next = AtomicU64::new(0);
    let (began, worked_before_us) = (Instant::now(), processor_us());
    let work = || {
        let (mut counts, mut violations) = (Counts::default(), Vec::new());
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= seeds {
                return (counts, violations);
            }
            match judged(from.wrapping_add(n), order) {
                Ok(one) => counts.add(one),
                Err(violation) => {
                    counts.seeds += 1;
                    violations.push(violation);
                }
            }
        }
    };
    let (mut counts, mut violations) = (Counts::default(), Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            if let Ok((c, v)) = thread.join() {
                counts.add(c);
                violations.extend(v);
            }
        }
    });
    violations.sort();
    for Violation { seed, scenario, text } in violations.iter().take(TOLD_MAX) {
        println!("seed {seed}, {scenario}: {text}");
        println!("    scripts/sim --replay {seed}{}", named_option(order));
    }
    if violations.len() > TOLD_MAX {
        println!(
            "and {} more: {:?}",
            violations.len() - TOLD_MAX,
            violations[TOLD_MAX..].iter().map(|v| v.seed).collect::<Vec<_>>()
        );
    }
    let elapsed_us = began.elapsed().as_micros().max(1) as u64;
    let worked_us = processor_us().saturating_sub(worked_before_us).max(1);
    let rate = |n: u64| u128::from(n) * 1_000_000 / u128::from(worked_us);
    println!(
        "{} seeds, {} segments, {} lifecycles, {} violations; of one core's second {} segments, {} lifecycles, {} seeds; \
         {} s of virtual time in {} ms, {} ms of processors; trace {:016x}",
        counts.seeds,
        counts.segments,
        counts.lifecycles,
        violations.len(),
        rate(counts.segments),
        rate(counts.lifecycles),
        rate(counts.seeds),
        counts.virtual_us / 1_000_000,
        elapsed_us / 1_000,
        worked_us / 1_000,
        counts.trace
    );
    if order.faults.is_some() || order.drawn_faults > 0 {
        println!("{} faults struck", counts.strikes.iter().sum::<u64>());
    }
    (counts, violations.is_empty())
}

/// What this process has had of processors, in microseconds: on a machine that others share, the clock on the wall says
/// more about them.
fn processor_us() -> u64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as u64 * 1_000_000 + spent.tv_nsec as u64 / 1_000
}

fn named_option(order: &Order) -> String {
    let mut scenario = order.scenario.map(|s| format!(" --scenario {}", s.name)).unwrap_or_default();
    if order.drawn_faults > 0 {
        scenario += " --pairs";
    }
    match order.ends {
        Ends::Drawn => scenario,
        Ends::Cards => scenario + " --ends cards",
        Ends::Smoltcp => scenario + " --ends smoltcp",
    }
}

/// Runs one seed and prints everything that happens in it before `until_us`; whether everything held.
pub fn replay(seed: u64, until_us: u64, order: &Order) -> bool {
    remember_panics();
    let scenario = order.scenario_of(Seed(seed));
    println!("seed {seed}: {}, {}", scenario.name, scenario.about);
    if order.drawn_faults > 0 {
        for Strike { card, site, nth, action } in drawn_strikes(Seed(seed), order.drawn_faults) {
            println!("card {}: passage {nth} of {}: {action:?}", ["a", "b"][card], site.name());
        }
    }
    narrate(Some(until_us));
    let result = judged(seed, order);
    narrate(None);
    match result {
        Ok(counts) => {
            let (virtual_ms, trace) = (counts.virtual_us / 1_000, counts.trace);
            println!(
                "everything held; {} segments, {virtual_ms} ms of virtual time; trace {trace:016x}",
                counts.segments
            );
            true
        }
        Err(violation) => {
            println!("{}", violation.text);
            false
        }
    }
}

/// Runs the world of one of the fuzzer's strings and prints everything that happens in it; whether everything held.
pub fn replay_string(bytes: &[u8]) -> bool {
    remember_panics();
    narrate(Some(u64::MAX));
    let result = catch_unwind(AssertUnwindSafe(|| crate::fuzz::run(bytes)));
    narrate(None);
    match result {
        Ok(counts) => println!("everything held; {} segments", counts.segments),
        Err(_) => println!("{}", SAID.with(|s| s.borrow().clone())),
    }
    result.is_ok()
}
